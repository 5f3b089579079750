package config

import (
	"fmt"

	"go.yaml.in/yaml/v4"
)

// AllowError says why a host of the command line cannot be allowed.
type AllowError struct {
	Host string
	Why  string
	hint string
}

func (e *AllowError) Error() string { return fmt.Sprintf("cannot allow %q: %s", clip(e.Host), e.Why) }

// Hint says what to write instead; it may be empty.
func (e *AllowError) Hint() string { return e.hint }

// Allow adds hosts to what can be reached, each written as an entry of
// domains.allow is. A blocklist cannot be added to: everything that it does not
// name is reachable already.
func (c *Config) Allow(hosts ...string) error { return c.allow(hosts, false) }

// AllowPrivate is Allow for hosts that may have private addresses.
func (c *Config) AllowPrivate(hosts ...string) error { return c.allow(hosts, true) }

func (c *Config) allow(hosts []string, private bool) error {
	for _, h := range hosts {
		if c.Domains.Mode == Blocklist {
			return &AllowError{h, "the config has a blocklist", "what it does not name is reachable already"}
		}
		e, err := parseAllow(h)
		if err != nil {
			return err
		}
		e.Private = private
		c.Domains.Mode = Allowlist
		c.Domains.Entries = append(c.Domains.Entries, e)
	}
	return nil
}

// parseAllow reads an entry with the code that reads it from a file.
func parseAllow(host string) (Entry, error) {
	d := newDecoder("--allow", nil)
	v := value{path: "--allow", n: &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: host}}
	var raw []rawEntry
	if e, ok := d.entry(v); ok {
		raw = append(raw, e)
	}
	entries := d.entries(raw, Allowlist)
	if len(d.errs) > 0 {
		return Entry{}, &AllowError{host, d.errs[0].Why, d.errs[0].Hint}
	}
	if len(entries) == 0 {
		return Entry{}, &AllowError{host, "it is no host", "write a name such as example.com"}
	}
	return entries[0], nil
}
