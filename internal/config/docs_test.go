package config

import (
	"fmt"
	"strings"
	"testing"
)

// TestDocs holds docs/configuration.md to the table of keys.
func TestDocs(t *testing.T) {
	golden(t, "../../docs/configuration.md", configurationPage())
}

func configurationPage() string {
	var b strings.Builder
	b.WriteString(pageHead)
	head := func(title, text string) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| key | type | default | |\n|---|---|---|---|\n", title, text)
	}
	rows := func(of func(KeyDoc) bool) {
		for _, k := range Keys() {
			if of(k) {
				fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Path, cell(k.Type), code(k.Default), cell(k.Doc))
			}
		}
	}
	head("Top level", "Sections have a table of their own below.")
	rows(func(k KeyDoc) bool { return top(k.Path) == k.Path })
	for _, section := range Keys() {
		if top(section.Path) != section.Path || !hasKeysBelow(section.Path) {
			continue
		}
		head("`"+section.Path+"`", section.Doc+sectionNotes[section.Path])
		rows(func(k KeyDoc) bool { return k.Path != section.Path && top(k.Path) == section.Path })
	}
	return b.String()
}

func top(path string) string { return path[:strings.IndexAny(path+".", ".[")] }

func hasKeysBelow(section string) bool {
	for _, k := range Keys() {
		if k.Path != section && top(k.Path) == section {
			return true
		}
	}
	return false
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + cell(s) + "`"
}

var sectionNotes = map[string]string{
	"domains": ` The entries of ` + "`block`, `passthrough` and `list`" + ` are written like those of ` + "`allow`" + `.

` + "```yaml" + `
domains:
  allow:
    - example.com              # and every name under it
    - =api.example.com         # that name alone
    - example.org:8443         # on that port alone
    - 192.0.2.7                # an address
    - "[2001:db8::1]:443"      # brackets need quotes in YAML
    - {host: mirror.corp, private: true}
    - host: git.example.net
      methods: [GET, POST]
      paths: ["/org/*/info/**"]
      ports: [443]
  passthrough:
    - pinned.example.com       # TLS is passed on, nothing in it is read
` + "```" + `

There are no wildcards, and no entry for every host. A public suffix such as ` + "`com` or `co.uk`" + ` is refused in a list that
allows. An empty list allows nothing, whichever list it is.`,
	"max_request_body": `

` + "```yaml" + `
max_request_body: 10MiB        # for every host; or
max_request_body:
  default: 10MiB
  per_host: {uploads.example.com: 1GiB}
` + "```" + ``,
	"rate_limit": `

` + "```yaml" + `
rate_limit:
  requests_per_second: 10
  per_host:
    api.example.com: {requests_per_second: 50, burst: 200}
` + "```" + ``,
	"budget": ` A destination is an entry of ` + "`domains.allow`" + ` with all names under it; with a blocklist, a domain
that somebody registered. [The inspector's page](../internal/inspect/budget/README.md) says how much can leave under a given budget.

` + "```yaml" + `
budget:
  window: 24h
  bytes: {flag: 100MiB, block: 1GiB}     # to each destination
  requests: {block: 50000}
  hosts: {flag: 50, block: 200}          # distinct names under one entry
  total:
    bytes: {block: 5GiB}
  per_host:
    api.example.com: {bytes: {flag: 5GiB, block: false}}
` + "```" + ``,
	"secrets": ` The patterns, and what is looked through, are in [its README](../internal/inspect/secrets/README.md). A pattern by
` + "`env`" + ` is the value of that variable where the gateway runs: [it is looked for](../internal/inspect/known/README.md) in every form and in pieces.`,
	"secret_injection": `

` + "```yaml" + `
# cage.yaml
name: my-cage
domains: {allow: [api.example.com, git.example.com]}
secret_injection:
  - env: API_KEY
    inject_to: [api.example.com]   # that name alone; .example.com would be every name under it too
  - env: GIT_TOKEN
    inject_to: [git.example.com]
    methods: [GET, POST]
    paths: ["/org/**"]
` + "```" + `

A placeholder on its way to any other host, or where its rule does not inject it, is blocked. So is every other credential on a host of
` + "`inject_to`" + `. In bodies to such a host placeholders are text, unless ` + "`inject_body`" + ` is set.`,
	"entropy":      ` False switches it off. What it finds and what it cannot is in internal/inspect/entropy/README.md.`,
	"content_type": ` False switches it off. What it finds and what it cannot is in internal/inspect/contenttype/README.md.`,
	"inspectors":   inspectorsNote,
	"observe": ` [Policy](policy.md) says how a policy is tried out with it.

` + "```yaml" + `
observe:
  - inspector: entropy         # everything it finds, whatever the host
  - inspector: secrets
    rule: jwt                  # one rule of it
  - inspector: domain          # learn which hosts an agent needs; opens the cage
    host: example.com
    until: 2027-01-31
` + "```" + `

The inspectors are ` + "`body-size`, `budget`, `content-type`, `decode`, `domain`, `entropy`, `injection`, `known-values`, `rate-limit`, `secrets`" + `
and those under ` + "`inspectors`" + `. An entry whose ` + "`until`" + ` is over has no effect, and is warned about; one that cannot be read is an error.`,
	"exempt": ` Its keys are those of ` + "`observe`" + `. No host is exempt from ` + "`domain`" + `, which ` + "`domains.allow`" + ` is for; ` + "`decode`, `known-values` and `injection`" + `
are excepted for named hosts only.

` + "```yaml" + `
exempt:
  - inspector: secrets
    rule: private_key
    host: =uploads.example.com
    paths: [/v1/**]
    methods: [PUT]
    until: 2027-01-31
    reason: the vendor's tool sends its test key
` + "```" + ``,
}

const inspectorsNote = ` An entry with ` + "`path`" + ` is an inspector in Python or WebAssembly, one with ` + "`when`" + ` is a condition over
the same fields, and one with neither sets what the section of a built-in inspector would set, and replaces it. See
[inspectors.md](inspectors.md).

` + "```yaml" + `
# cage.yaml
name: my-cage
domains:
  allow: [api.example.com]
inspectors:
  - name: my-check
    path: ./my_inspector.py
    config: {limit: 20}
    timeout: 2s
  - name: no-deletes
    when: 'method == "DELETE" && host endsWith "example.com"'
    action: block
  - name: entropy
    config: {threshold: 7.5}
` + "```" + ``

const pageHead = `<!-- Written by go test ./internal/config -run TestDocs -update from the table of keys; do not edit. -->

# cage.yaml

One file describes a cage. It is read strictly: an unknown key, a wrong type, a key written twice, a second YAML document,
an anchor or a tag is an error with its place, the line and a hint, and nothing is started.

` + "```yaml" + `
name: my-cage
domains:
  allow: [api.example.com, github.com]
` + "```" + `

- A key that is absent has its default. A key without a value is an error, except where the table says null; a section
  without keys is the same as one that is absent.
- Relative paths are taken from the folder of the file. ` + "`~` and `~/x`" + ` are the home directory of whoever runs agentcage, as
  ` + "`$HOME`" + ` has it. Nothing else of the environment is read, and no variable is expanded, except that the container backend
  expands those in ` + "`container.env` and `container.volumes`" + `, and that the gateway looks for the values of variables that
  ` + "`secrets.extra_patterns` names under `env`" + `.
- A size is a whole number and one of the units ` + "`b`, `k`, `m`, `g`" + ` (powers of 1024); ` + "`max_request_body` and `budget`" + ` also take
  ` + "`t` and the long forms, as in `10MiB`" + `. A duration is a number with its unit, as
  in ` + "`500ms`, `30s`, `2m`" + `.
- The file has at most 1 MiB and 50,000 values, a list at most 10,000 entries.
`
