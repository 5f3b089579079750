package config

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/agentcage/agentcage/internal/hostname"
)

// Secrets is the section secrets.
type Secrets struct {
	Enabled               bool
	BuiltinAllowToDomains bool
	AllowToDomains        map[string][]hostname.Name // pattern name to hosts; none empties the built-in list
	ExtraPatterns         []Pattern
	Action                string // block, flag or observe
}

// Pattern is one line of secrets.extra_patterns. Exactly one of Pattern and
// Env is set.
type Pattern struct {
	Name    string
	Pattern string // RE2
	Env     string // name of a variable whose value is looked for
}

// Injection is the section secret_injection.
type Injection struct {
	Rules    []InjectionRule
	RedactTo []hostname.Name
}

// InjectionRule says which placeholder stands for which secret, and where it
// may go.
type InjectionRule struct {
	Env           string
	Placeholder   string   // empty for one that is made and kept
	InjectTo      []Target // empty for nowhere
	Methods       []string // empty for all
	Paths         []string // patterns for inspect.MatchPath; empty for all
	InjectHeaders []string // empty for those whose name contains auth, key or token
	InjectBody    bool
	InjectQuery   bool
	Source        string // where the value comes from; empty for the store
	Transform     Transform
	Foreign       string // what is done with another credential: block, flag or allow
	Position      Position
}

// Target is a host that may get a secret, and where it is a zone every name
// under it.
type Target struct {
	Host hostname.Name
	Zone bool // ".example.com"
}

// Transform makes a short-lived credential out of a secret. Its settings are
// checked by shape alone; what they mean is for the transform.
type Transform struct {
	Type     string // empty for none
	Settings map[string]Setting
}

// Setting is one setting of a transform, of which one field is set.
type Setting struct {
	Text string
	List []string
	Map  map[string]string
}

// Entropy is the section entropy.
type Entropy struct {
	Enabled            bool
	Threshold          float64 // bits a byte
	MinBodyBytes       int
	Action             string // block, flag or observe
	ExemptContentTypes []string
	CheckURLParams     bool
	CheckURLPath       bool
	URLThreshold       float64
	URLMinValueBytes   int

	HostExemptContentTypes map[hostname.Name][]string // further ones for a host and those under it
	HostURLParamAllowlist  map[hostname.Name][]string // parameters that are not measured, likewise; "*" is the whole URL
}

// ContentType is the section content_type.
type ContentType struct {
	Enabled        bool
	EntropyCeiling float64 // bits a byte
	DetectBase64   bool
	Base64MinLen   int
	Action         string // block, flag or observe
}

var secretsKeys = []key[Secrets]{
	boolKey("enabled", "true", "Whether the section is in force.", func(s *Secrets) *bool { return &s.Enabled }),
	boolKey("builtin_allow_to_domains", "true", "Let known forms of keys go to the hosts of those who issue them.", func(s *Secrets) *bool { return &s.BuiltinAllowToDomains }),
	{name: "allow_to_domains", typ: "map of pattern to list of hosts", def: "{}", doc: "Hosts that a pattern may go to beside the built-in ones, with every name under them; [] takes the built-in ones away.", read: readAllowTo},
	{
		name: "extra_patterns", typ: "list of maps", def: "[]", doc: "Further patterns.", sub: docsOf("[].", patternKeys),
		read: func(d *decoder, v value, s *Secrets) { s.ExtraPatterns = list(d, v, d.pattern) },
	},
	choiceKey("action", "block", "What is done with a finding; observe records it and lets it pass.", actions, func(s *Secrets) *string { return &s.Action }),
}

var patternKeys = []key[Pattern]{
	textKey("name", "", "Name of the pattern, as it is in the audit log.", func(p *Pattern) *string { return &p.Name }),
	{name: "pattern", typ: "regular expression", doc: "Regular expression in RE2 syntax.", read: readRegexp},
	{name: "env", typ: "text", doc: "Variable whose value is looked for, in place of pattern.", read: func(d *decoder, v value, p *Pattern) { p.Env, _ = d.envName(v) }},
}

var actions = []string{"block", "flag", "observe"}

var entropyKeys = []key[Entropy]{
	boolKey("enabled", "true", "Whether the section is in force.", func(e *Entropy) *bool { return &e.Enabled }),
	floatKey("threshold", "7.0", "Bits a byte from which on a body is refused.", 0, 8, func(e *Entropy) *float64 { return &e.Threshold }),
	intKey("min_body_bytes", "256", "Smaller bodies are not measured.", 0, 1<<30, func(e *Entropy) *int { return &e.MinBodyBytes }),
	choiceKey("action", "block", "What is done with a finding.", actions, func(e *Entropy) *string { return &e.Action }),
	textsKey("exempt_content_types", "[image/, application/gzip, application/zip]", "Beginnings of content types that are not measured.", func(e *Entropy) *[]string { return &e.ExemptContentTypes }),
	boolKey("check_url_params", "true", "Measure query values.", func(e *Entropy) *bool { return &e.CheckURLParams }),
	boolKey("check_url_path", "true", "Measure path segments.", func(e *Entropy) *bool { return &e.CheckURLPath }),
	floatKey("url_threshold", "5.5", "Bits a byte from which on a part of a URL is refused.", 0, 8, func(e *Entropy) *float64 { return &e.URLThreshold }),
	intKey("url_min_value_bytes", "64", "Shorter parts of a URL are not measured.", 0, 1<<20, func(e *Entropy) *int { return &e.URLMinValueBytes }),
	hostTextsKey("host_exempt_content_types", "Beginnings of further content types that are not measured, for a host and those under it.", func(e *Entropy) *map[hostname.Name][]string { return &e.HostExemptContentTypes }),
	hostTextsKey("host_url_param_allowlist", `Query parameters that are not measured, for a host and those under it, in place of the built-in ones of that host; ["*"] is its whole URLs.`, func(e *Entropy) *map[hostname.Name][]string { return &e.HostURLParamAllowlist }),
}

// hostTextsKey is a map of host to list of text.
func hostTextsKey(name, doc string, at func(*Entropy) *map[hostname.Name][]string) key[Entropy] {
	return key[Entropy]{name: name, typ: "map of host to list of text", def: "{}", doc: doc, read: func(d *decoder, v value, e *Entropy) {
		out := make(map[hostname.Name][]string)
		d.table(v, func(k, v value) {
			var e rawEntry
			before := len(d.errs)
			readHost(d, k, &e)
			if e.Exact || len(e.Ports) > 0 {
				d.fail(k, "it is more than a name", "write the host alone; it stands for what is under it too")
			}
			if texts := list(d, v, d.text); len(d.errs) == before {
				out[e.Host] = texts
			}
		})
		*at(e) = nil
		if len(out) > 0 {
			*at(e) = out
		}
	}}
}

var contentTypeKeys = []key[ContentType]{
	boolKey("enabled", "true", "Whether the section is in force.", func(c *ContentType) *bool { return &c.Enabled }),
	floatKey("entropy_ceiling", "6.5", "Bits a byte above which text is no text.", 0, 8, func(c *ContentType) *float64 { return &c.EntropyCeiling }),
	boolKey("detect_base64", "true", "Look for long runs of base64 in text.", func(c *ContentType) *bool { return &c.DetectBase64 }),
	intKey("base64_min_len", "256", "Length from which on a run is long.", 1, 1<<30, func(c *ContentType) *int { return &c.Base64MinLen }),
	choiceKey("action", "block", "What is done with a finding.", actions, func(c *ContentType) *string { return &c.Action }),
}

var injectionKeys = []key[Injection]{
	{
		name: "rules", typ: "list of maps", doc: "The rules, when secret_injection is a map.", sub: docsOf("[].", ruleKeys),
		read: func(d *decoder, v value, i *Injection) { i.Rules = list(d, v, d.rule) },
	},
	{
		name: "redact_to", typ: typeList, doc: "Hosts that get the placeholder in place of the secret.",
		read: func(d *decoder, v value, i *Injection) { i.RedactTo = list(d, v, d.host) },
	},
}

var ruleKeys = []key[InjectionRule]{
	{
		name: "env", typ: "text", doc: "Name of the secret, and of the variable that holds the placeholder. Required.",
		read: func(d *decoder, v value, r *InjectionRule) { r.Env, _ = d.envName(v) },
	},
	textKey("placeholder", "", "What the agent has in place of the secret. Without it one is made that cannot be guessed, and kept.", func(r *InjectionRule) *string { return &r.Placeholder }),
	{
		name: "inject_to", typ: typeList, doc: "Hosts that get the secret: example.com is that name alone, .example.com every name under it too. Empty is none.",
		read: func(d *decoder, v value, r *InjectionRule) { r.InjectTo = list(d, v, d.target) },
	},
	{name: "methods", typ: typeList, doc: "The HTTP methods it is injected for. Without it, all.", read: func(d *decoder, v value, r *InjectionRule) { r.Methods = d.methods(v) }},
	{name: "paths", typ: typeList, doc: "The paths it is injected for, written as in domains. Without it, all.", read: func(d *decoder, v value, r *InjectionRule) { r.Paths = d.paths(v) }},
	{
		name: "inject_headers", typ: typeList, doc: "The headers it is injected into. Without it, those whose name contains auth, key or token.",
		read: func(d *decoder, v value, r *InjectionRule) {
			if d.some(v, "the headers whose name contains auth, key or token") {
				r.InjectHeaders = list(d, v, d.headerName)
			}
		},
	},
	boolKey("inject_body", "false", "Inject into bodies and WebSocket messages too.", func(r *InjectionRule) *bool { return &r.InjectBody }),
	boolKey("inject_query", "false", "Inject into values of the query too.", func(r *InjectionRule) *bool { return &r.InjectQuery }),
	{name: "source", typ: "text", def: "store", doc: "Where the secret comes from: store, env:VAR, file:PATH, cmd:COMMAND, sh:TEXT, systemd-creds:NAME or podman:NAME.", read: readSource},
	{name: "transform", typ: "text, or a map", doc: "What short-lived credential is made of the secret; a map has type and the settings of that.", read: readTransform},
	choiceKey("foreign_credentials", "block", "What is done with a credential other than the placeholder, on a host that gets the secret.", []string{"block", "flag", "allow"}, func(r *InjectionRule) *string { return &r.Foreign }),
}

var (
	sources    = []string{"env", "file", "cmd", "sh", "systemd-creds", "podman"}
	transforms = []string{"google-jwt-bearer", "github-app", "aws-sigv4", "oauth2-refresh", "basic"}
)

// injectionDocs documents both forms of secret_injection.
func injectionDocs() []KeyDoc {
	return append(docsOf("[].", ruleKeys), docsOf(".", injectionKeys)...)
}

// switchable is a section that false switches off.
func switchable[S any](name, doc string, keys []key[S], at func(*Config) *S, enabled func(*Config) *bool) key[Config] {
	return key[Config]{name: name, typ: "map, or false", doc: doc, sub: docsOf(".", keys), read: func(d *decoder, v value, c *Config) {
		switch {
		case isFalse(v):
			*enabled(c) = false
		case v.n.Kind == yaml.ScalarNode && !v.isNull():
			d.fail(v, "it is neither a map nor false", "write a map of its keys, or false to switch it off")
		default:
			fields(d, v, keys, at(c))
		}
	}}
}

func readAllowTo(d *decoder, v value, s *Secrets) {
	s.AllowToDomains = nil
	d.table(v, func(k, v value) {
		hosts := list(d, v, d.host)
		if _, ok := d.oneLine(k); !ok {
			return
		}
		if s.AllowToDomains == nil {
			s.AllowToDomains = make(map[string][]hostname.Name)
		}
		s.AllowToDomains[k.n.Value] = hosts
	})
}

// host reads a host without a port, which stands for every name under it too.
func (d *decoder) host(v value) (hostname.Name, bool) {
	e, ok := d.hostAlone(v)
	switch {
	case !ok || !e.Exact && !d.notSuffix(v, e.Host, ""):
		return hostname.Name{}, false
	case e.Exact:
		d.fail(v, "exact names are not supported here", "write the name without =")
		return hostname.Name{}, false
	}
	return e.Host, true
}

// target reads a host that may get a secret: unlike a host elsewhere it is that
// name alone, unless it begins with a dot.
func (d *decoder) target(v value) (Target, bool) {
	if rest, ok := strings.CutPrefix(v.n.Value, "*."); ok && v.n.Kind == yaml.ScalarNode {
		d.fail(v, fmt.Sprintf("%q is no host", clip(v.n.Value)), fmt.Sprintf("write .%s for it and every name under it", clip(rest)))
		return Target{}, false
	}
	e, ok := d.hostAlone(v)
	zone := strings.HasPrefix(v.n.Value, ".")
	if !ok || zone && !d.notSuffix(v, e.Host, "") {
		return Target{}, false
	}
	return Target{Host: e.Host, Zone: zone}, true
}

func (d *decoder) hostAlone(v value) (rawEntry, bool) {
	var e rawEntry
	before := len(d.errs)
	readHost(d, v, &e)
	if len(e.Ports) > 0 {
		d.fail(v, "it has a port", "write the host alone")
	}
	return e, len(d.errs) == before
}

func (d *decoder) headerName(v value) (string, bool) {
	s, ok := d.text(v)
	if ok && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~") != "" {
		d.fail(v, fmt.Sprintf("%q is no name of a header", clip(s)), "write one such as X-Api-Key, without a colon")
		return "", false
	}
	return http.CanonicalHeaderKey(s), ok
}

func readSource(d *decoder, v value, r *InjectionRule) {
	s, ok := d.text(v)
	kind, rest, _ := strings.Cut(s, ":")
	switch {
	case !ok || s == "store":
		return
	case !slices.Contains(sources, kind):
		d.fail(v, fmt.Sprintf("%q is no source of a secret", clip(kind)), hintChoice(kind, append([]string{"store"}, sources...)))
		return
	case rest == "":
		d.fail(v, "it does not say which", fmt.Sprintf("write %s:NAME", kind))
		return
	case kind == "env" && !ValidEnv(rest):
		d.fail(v, fmt.Sprintf("%q is no name of an environment variable", clip(rest)), "use letters, digits and _, and begin with no digit")
		return
	}
	r.Source = s
}

func readTransform(d *decoder, v value, r *InjectionRule) {
	if v.n.Kind == yaml.ScalarNode && !v.isNull() {
		r.Transform.Type, _ = d.choice(v, transforms)
		return
	}
	typed := false
	d.table(v, func(k, v value) {
		if k.n.Value == "type" {
			typed = true
			r.Transform.Type, _ = d.choice(v, transforms)
			return
		}
		if s, ok := d.setting(v); ok {
			if r.Transform.Settings == nil {
				r.Transform.Settings = make(map[string]Setting)
			}
			r.Transform.Settings[k.n.Value] = s
		}
	})
	if !typed {
		d.fail(v, "it has no type", "add type: and one of "+strings.Join(transforms, ", "))
	}
}

func (d *decoder) setting(v value) (s Setting, ok bool) {
	before := len(d.errs)
	switch v.n.Kind {
	case yaml.SequenceNode:
		s.List = list(d, v, d.literal)
	case yaml.MappingNode:
		s.Map = make(map[string]string)
		d.table(v, func(k, v value) { s.Map[k.n.Value], _ = d.literal(v) })
	default:
		s.Text, _ = d.literal(v)
	}
	return s, len(d.errs) == before
}

func (d *decoder) pattern(v value) (Pattern, bool) {
	var p Pattern
	before := len(d.errs)
	fields(d, v, patternKeys, &p)
	switch {
	case len(d.errs) > before:
		return p, false
	case p.Name == "":
		d.fail(v, "it has no name", "add name: NAME")
	case p.Pattern == "" && p.Env == "":
		d.fail(v, "it has neither pattern nor env", `add pattern: "…", or env: NAME`)
	case p.Pattern != "" && p.Env != "":
		d.fail(v, "it has both pattern and env", "keep one of the two")
	}
	return p, len(d.errs) == before
}

func readRegexp(d *decoder, v value, p *Pattern) {
	s, ok := d.text(v)
	if !ok {
		return
	}
	re, err := regexp.Compile(s)
	switch {
	case err != nil:
		d.fail(v, strings.Replace(err.Error(), "error parsing regexp: ", "the regular expression has an error: ", 1),
			"patterns are RE2: no look-around and no back references; in YAML write them in single quotes")
		return
	case re.MatchString(""):
		d.fail(v, "the regular expression matches the empty text, and so everything", "make a part of it required")
		return
	}
	p.Pattern = s
}

// readInjection takes both forms: a list of rules, or {rules, redact_to}.
func readInjection(d *decoder, v value, c *Config) {
	switch {
	case v.n.Kind == yaml.SequenceNode:
		c.Injection.Rules = list(d, v, d.rule)
	case v.n.Kind == yaml.ScalarNode && v.n.ShortTag() == "!!bool" && strings.EqualFold(v.n.Value, "false"), v.isNull():
		return
	case v.n.Kind == yaml.ScalarNode:
		d.notList(v)
		return
	default:
		fields(d, v, injectionKeys, &c.Injection)
	}
	d.distinct(c.Injection.Rules)
}

// distinct refuses rules that could be taken for one another, and warns of
// those that do not do what somebody may expect.
func (d *decoder) distinct(rules []InjectionRule) {
	placeholders, envs := make(map[string]int), make(map[string]int)
	for _, r := range rules {
		if first := placeholders[r.Placeholder]; first > 0 && r.Placeholder != "" {
			d.add(r.Position, 1, fmt.Sprintf("its placeholder is that of the rule on line %d", first), "give every secret a placeholder of its own")
			continue
		}
		if first := envs[r.Env]; first > 0 {
			d.add(r.Position, 1, fmt.Sprintf("its env is that of the rule on line %d", first), "name all hosts in one rule")
			continue
		}
		placeholders[r.Placeholder], envs[r.Env] = r.Position.Line, r.Position.Line
		if len(r.InjectTo) == 0 {
			d.warn(r.Position, r.Env+" is injected nowhere, because inject_to names no host")
		}
		if r.Placeholder != "" && !strings.HasPrefix(r.Placeholder, "agentcage:secret:"+r.Env+":") {
			d.warn(r.Position, "the placeholder of "+r.Env+" can be guessed: text that holds it by chance or by design stands for the secret; remove it, and one is made that cannot")
		}
	}
}

func (d *decoder) rule(v value) (InjectionRule, bool) {
	r := InjectionRule{Foreign: "block", Position: v.position()}
	before := len(d.errs)
	fields(d, v, ruleKeys, &r)
	if len(d.errs) == before && r.Env == "" {
		d.fail(v, "it has no env", "add env: NAME")
	}
	return r, len(d.errs) == before
}
