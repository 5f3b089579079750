package config

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// topKeys is the table of cage.yaml. Its order is the order in which keys are
// read, so that a newer key, which stands later, wins over an older one.
var topKeys = []key[Config]{
	{name: "name", typ: "text", doc: "Name of the cage: a-z, 0-9 and -, at most 63 characters. Required.", read: readName},
	choiceKey("isolation", "", "How the cage is made. Without it each command takes its own: `run` takes process, `cage create` takes container.",
		[]string{"process", "container", "firecracker"}, func(c *Config) *string { return &c.Isolation }),
	{name: "max_request_body", typ: "size, or a map", def: "10485760", doc: "Most bytes of a request's body; 0 is no limit.", sub: docsOf(".", bodyKeys), read: readBody},
	{name: "domains", typ: typeMap, doc: "The hosts that can be reached. Absent, empty or null, none can.", read: readDomains, sub: docsOf(".", domainKeys)},
	section("rate_limit", "Requests to each host, as a token bucket.", rateKeys, func(c *Config) *RateLimit { return &c.RateLimit }),
	section("websocket", "Messages of WebSockets, which are inspected as bodies are.", websocketKeys, func(c *Config) *WebSocket { return &c.WebSocket }),
	switchable("budget", "What may leave in a window of time, to each destination and in all.", budgetKeys,
		func(c *Config) *Budget { return &c.Budget }, func(c *Config) *bool { return &c.Budget.Enabled }),
	boolKey("log_allowed", "", "Older name of logging.allowed_requests, which wins when both are set.", func(c *Config) *bool { return &c.Logging.AllowedRequests }),
	section("logging", "What is recorded beside what is refused; refusals are always in the audit log.", loggingKeys, func(c *Config) *Logging { return &c.Logging }),
	{name: "dns_servers", typ: typeList, doc: "Older name of upstream.dns_servers.", read: func(d *decoder, v value, c *Config) { c.Upstream.DNSServers = readDNS(d, v) }},
	section("upstream", "How the gateway reaches servers.", upstreamKeys, func(c *Config) *Upstream { return &c.Upstream }),
	section("process", "Cages of isolation process, which `run` makes.", processKeys, func(c *Config) *Process { return &c.Process }),
	section("container", "Cages of isolation container, and the image of firecracker.", containerKeys, func(c *Config) *Container { return &c.Container }),
	section("firecracker", "Cages of isolation firecracker.", firecrackerKeys, func(c *Config) *Firecracker { return &c.Firecracker }),
	switchable("secrets", "Refuse requests that carry a known form of secret.", secretsKeys,
		func(c *Config) *Secrets { return &c.Secrets }, func(c *Config) *bool { return &c.Secrets.Enabled }),
	{name: "secret_injection", typ: "list of maps, or a map", doc: "Placeholders that the gateway replaces by secrets.", read: readInjection, sub: injectionDocs()},
	switchable("entropy", "Refuse requests that look encrypted or compressed.", entropyKeys,
		func(c *Config) *Entropy { return &c.Entropy }, func(c *Config) *bool { return &c.Entropy.Enabled }),
	switchable("content_type", "Refuse bodies that are not what their type says.", contentTypeKeys,
		func(c *Config) *ContentType { return &c.ContentType }, func(c *Config) *bool { return &c.ContentType.Enabled }),
	{name: "inspectors", typ: "list of maps", def: "[]", doc: "Inspectors of your own, in the order in which they are asked, and settings of the built-in ones.", read: readInspectors, sub: docsOf("[].", inspectorKeys)},
	exceptionsKey("observe", "Findings that are recorded as they would have been decided, and not enforced.", func(c *Config) *[]Exception { return &c.Observe }),
	exceptionsKey("exempt", "Findings that are excepted, and recorded as such.", func(c *Config) *[]Exception { return &c.Exempt }),
}

var rateKeys = append(bucketKeys[:len(bucketKeys):len(bucketKeys)], key[RateLimit]{
	name: "per_host", typ: "maps by host", def: "{}", doc: "The bucket of a host and every name under it; what is left out is as for the others.",
	sub: docsOf("[].", bucketKeys), read: readRateHosts,
})

var bucketKeys = []key[RateLimit]{
	floatKey("requests_per_second", "10", "Tokens that come back each second; 0 switches the limit off.", 0, 1e6, func(r *RateLimit) *float64 { return &r.RequestsPerSecond }),
	intKey("burst", "50", "Tokens that the bucket holds; 0 refuses every request unless the limit is off.", 0, 1e6, func(r *RateLimit) *int { return &r.Burst }),
	durationKey("wait", "0s", "How long a request may be held for a token before it is refused.", 5*time.Minute, func(r *RateLimit) *time.Duration { return &r.Wait }),
}

var websocketKeys = []key[WebSocket]{
	choiceKey("on_block", "close", "What a blocked message does: close the connection with code 1008 and the reason, or drop the message and keep the connection.",
		[]string{"close", "drop"}, func(w *WebSocket) *string { return &w.OnBlock }),
}

var levels = []string{"debug", "info", "warning", "error", "critical"}

var loggingKeys = []key[Logging]{
	choiceKey("level", "info", "Least severity of the program's own messages.", levels, func(l *Logging) *string { return &l.Level }),
	boolKey("dns_queries", "false", "Record DNS queries that were answered with an address.", func(l *Logging) *bool { return &l.DNSQueries }),
	boolKey("proxy_connections", "false", "Record connections to the gateway.", func(l *Logging) *bool { return &l.ProxyConnections }),
	boolKey("allowed_requests", "false", "Record allowed requests too.", func(l *Logging) *bool { return &l.AllowedRequests }),
	serviceLevel("dns"), serviceLevel("proxy"), serviceLevel("cage"),
}

func serviceLevel(service string) key[Logging] {
	return key[Logging]{
		name: service, typ: orList(levels), doc: "Level of the " + service + " service, where it differs.",
		read: func(d *decoder, v value, l *Logging) {
			if s, ok := d.choice(v, levels); ok {
				if l.Services == nil {
					l.Services = make(map[string]string)
				}
				l.Services[service] = s
			}
		},
	}
}

var containerKeys = []key[Container]{
	textKey("image", "", "Image of the agent. Required for isolation container and firecracker.", func(c *Container) *string { return &c.Image }),
	literalsKey("command", "[]", "Command and arguments; empty takes those of the image.", func(c *Container) *[]string { return &c.Command }),
	textsKey("volumes", "[]", "Bind mounts, HOST:CAGE[:OPTIONS].", func(c *Container) *[]string { return &c.Volumes }),
	envKey("env", "Environment variables.", func(c *Container) *map[string]string { return &c.Env }),
	{name: "named_volumes", typ: "map of volume to mount", def: "{}", doc: "Named volumes and where they are mounted.", read: func(d *decoder, v value, c *Container) { c.NamedVolumes = d.volumes(v) }},
	textsKey("tmpfs", "[]", "Temporary file systems.", func(c *Container) *[]string { return &c.Tmpfs }),
	literalsKey("ports", "[]", "Published ports, [ADDRESS:]HOST:CAGE.", func(c *Container) *[]string { return &c.Ports }),
	{name: "podman_secrets", typ: typeList, def: "[]", doc: "Secrets that the agent gets as environment variables.", read: func(d *decoder, v value, c *Container) { c.PodmanSecrets = list(d, v, d.envName) }},
	{name: "user", typ: "text or null", def: `"1000:1000"`, doc: "User and group of the agent; null or empty takes those of the image.", read: func(d *decoder, v value, c *Container) { c.User = d.optional(v) }},
	{name: "memory", typ: "size", def: `""`, doc: "Limit of memory, as in 2g; empty is none.", read: func(d *decoder, v value, c *Container) { c.Memory = d.limitText(v, d.size) }},
	{name: "cpus", typ: "number", def: `""`, doc: "Limit of CPUs, as in 1.5; empty is none.", read: func(d *decoder, v value, c *Container) { c.CPUs = d.limitText(v, d.cpuCount) }},
	boolKey("read_only", "true", "Mount the image read-only.", func(c *Container) *bool { return &c.ReadOnly }),
	{name: "drop_capabilities", typ: "list of text, or text", def: "[ALL]", doc: "Capabilities to drop; false, null or empty drops none.", read: readDropped},
	textsKey("add_capabilities", "[]", "Capabilities to give back.", func(c *Container) *[]string { return &c.AddCapabilities }),
	boolKey("no_new_privileges", "true", "Forbid programs to gain privileges.", func(c *Container) *bool { return &c.NoNewPrivileges }),
	boolKey("security_label_disable", "true", "Run without an SELinux label.", func(c *Container) *bool { return &c.SecurityLabelDisable }),
	choiceKey("restart", "on-failure", "When the agent is started again, as in systemd.service(5).",
		[]string{"no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always"}, func(c *Container) *string { return &c.Restart }),
	intKey("restart_sec", "10", "Seconds before it is started again.", 0, 86400, func(c *Container) *int { return &c.RestartSec }),
	timeoutKey("timeout_start_sec", "120", "Seconds that a start may take; 0 or null leaves it to systemd.", func(c *Container) *int { return &c.TimeoutStartSec }),
	timeoutKey("timeout_stop_sec", "30", "Seconds that a stop may take; 0 or null leaves it to systemd.", func(c *Container) *int { return &c.TimeoutStopSec }),
}

var firecrackerKeys = []key[Firecracker]{
	textKey("kernel", `""`, "Kernel image; empty takes the one that set-up prepared.", func(f *Firecracker) *string { return &f.Kernel }),
	intKey("vcpus", "2", "Virtual CPUs.", 1, 32, func(f *Firecracker) *int { return &f.VCPUs }),
	intKey("mem_mb", "2048", "Memory of the virtual machine in MiB.", 64, 1<<20, func(f *Firecracker) *int { return &f.MemMB }),
	textKey("firecracker_bin", "firecracker", "The Firecracker program.", func(f *Firecracker) *string { return &f.Binary }),
}

func readName(d *decoder, v value, c *Config) {
	if v.isNull() {
		d.fail(v, "it has no value, and a cage needs a name", "write a name, such as my-cage")
		return
	}
	s, ok := d.text(v)
	if !ok {
		return
	}
	if !ValidName(s) {
		d.fail(v, fmt.Sprintf("%q is no name for a cage", clip(s)), "use a-z, 0-9 and -, begin with a letter or digit, at most 63 characters")
		return
	}
	c.Name = s
}

// ValidName reports whether s can name a cage: a lower-case letter or digit,
// then at most 62 of those and hyphens, and nothing after them (rule 110).
func ValidName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		word := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !word && (c != '-' || i == 0) {
			return false
		}
	}
	return 1 <= len(s) && len(s) <= 63
}

func timeoutKey(name, def, doc string, at func(*Container) *int) key[Container] {
	return key[Container]{name: name, typ: "whole number or null", def: def, doc: doc, read: func(d *decoder, v value, c *Container) {
		if v.isNull() {
			*at(c) = 0
		} else if n, ok := d.int(v, 0, 86400); ok {
			*at(c) = int(n)
		}
	}}
}

func isEmptyText(v value) bool {
	return v.n.Kind == yaml.ScalarNode && v.n.ShortTag() == "!!str" && v.n.Value == ""
}

// optional reads text that null or "" switches off.
func (d *decoder) optional(v value) string {
	if v.isNull() || isEmptyText(v) {
		return ""
	}
	s, ok := d.literal(v)
	if ok {
		s, _ = d.oneLine(v)
	}
	return s
}

// limitText keeps a limit in the words of the file, after its own reader has
// found it to be one.
func (d *decoder) limitText(v value, check func(value) bool) string {
	if s := d.optional(v); s != "" && check(v) {
		return s
	}
	return ""
}

func (d *decoder) size(v value) bool {
	_, ok := d.bytes(v)
	return ok
}

func (d *decoder) cpuCount(v value) bool {
	_, ok := d.cpus(v)
	return ok
}

// bytes reads a size as podman run --memory takes it: a whole number with one
// of the units b, k, m, g (powers of 1024), b when there is none.
func (d *decoder) bytes(v value) (int64, bool) {
	const least = 1 << 20
	s, ok := d.literal(v)
	if !ok {
		return 0, false
	}
	digits, shift := strings.ToLower(s), 0
	if i := strings.IndexByte("bkmg", last(digits)); digits != "" && i >= 0 {
		digits, shift = digits[:len(digits)-1], 10*i
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !isDigits(digits) || n < 0 {
		d.fail(v, fmt.Sprintf("%q is not a size", clip(s)), `write a whole number and one of b, k, m, g, such as "2g" or "512m"`)
		return 0, false
	}
	if n > math.MaxInt64>>(shift+1) || n<<shift < least || n<<shift > 1<<50 {
		d.fail(v, fmt.Sprintf("%s is out of range", clip(s)), "write 1m or more; leave the key out for no limit")
		return 0, false
	}
	return n << shift, true
}

func last(s string) byte {
	if s == "" {
		return 0
	}
	return s[len(s)-1]
}

// cpus reads a number of CPUs, with or without quotes.
func (d *decoder) cpus(v value) (float64, bool) {
	s, ok := d.literal(v)
	if !ok {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || strings.Trim(s, "0123456789.") != "" {
		d.fail(v, fmt.Sprintf("%q is not a number of CPUs", clip(s)), "write a number such as 1.5")
		return 0, false
	}
	if !(f >= 0.01 && f <= 4096) {
		d.fail(v, fmt.Sprintf("%s is out of range", clip(s)), "write 0.01 to 4096; leave the key out for no limit")
		return 0, false
	}
	return f, true
}

// volumes reads named volumes. A name that begins with - would be a flag to
// podman (rule 111).
func (d *decoder) volumes(v value) map[string]string {
	var out map[string]string
	d.table(v, func(k, v value) {
		name := k.n.Value
		if !isVolumeName(name) {
			d.fail(k, "it is no name of a volume", "use letters, digits, _ . and -, and begin with a letter or digit")
			return
		}
		if s, ok := d.text(v); ok {
			if out == nil {
				out = make(map[string]string)
			}
			out[name] = s
		}
	})
	return out
}

func isVolumeName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		word := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !word && (i == 0 || !strings.ContainsRune("_.-", rune(c))) {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

func (d *decoder) envName(v value) (string, bool) {
	s, ok := d.text(v)
	if ok && !ValidEnv(s) {
		d.fail(v, fmt.Sprintf("%q is no name of an environment variable", clip(s)), "use letters, digits and _, and begin with no digit")
		return "", false
	}
	return s, ok
}

// readDropped follows the original: a list, one capability, or anything that
// Python holds for false, which drops none.
func readDropped(d *decoder, v value, c *Container) {
	c.DropCapabilities = nil
	switch {
	case v.isNull(), isEmptyText(v), v.n.Kind == yaml.ScalarNode && v.n.ShortTag() == "!!bool" && strings.EqualFold(v.n.Value, "false"):
	case v.n.Kind == yaml.ScalarNode:
		if s, ok := d.text(v); ok {
			c.DropCapabilities = []string{s}
		}
	default:
		c.DropCapabilities = list(d, v, d.text)
	}
}

var processKeys = []key[Process]{
	choiceKey("home", "private", "Home directory: private is empty each time, persist is kept for this cage's name.", []string{"private", "persist"}, func(p *Process) *string { return &p.Home }),
	pathsKey("read_write", "Paths of the host that the cage may change.", func(p *Process) *[]string { return &p.ReadWrite }),
	pathsKey("read_only", "Paths of the host that the cage may read.", func(p *Process) *[]string { return &p.ReadOnly }),
	pathsKey("allow_sensitive", "Paths with credentials that may be given all the same.", func(p *Process) *[]string { return &p.AllowSensitive }),
	{name: "unguarded", typ: typePath, def: "[]", doc: "Guarded paths of the working directory, such as .envrc, that the cage may change.", read: func(d *decoder, v value, p *Process) { p.Unguarded = list(d, v, d.localPath) }},
	envKey("env", "Environment variables of the command, as they stand: nothing is expanded.", func(p *Process) *map[string]string { return &p.Env }),
	{name: "memory", typ: "size", doc: "Limit of memory, as in 2g. Without it there is none.", read: func(d *decoder, v value, p *Process) { p.MemoryBytes, _ = d.bytes(v) }},
	{name: "cpus", typ: "number", doc: "Limit of CPUs, as in 1.5. Without it there is none.", read: func(d *decoder, v value, p *Process) { p.CPUs, _ = d.cpus(v) }},
	intKey("processes", "", "Limit of processes and threads. Without it the backend's own holds.", 1, 1<<22, func(p *Process) *int { return &p.Processes }),
	intKey("open_files", "", "Limit of open files of each process. Without it the backend's own holds.", 8, 1<<20, func(p *Process) *int { return &p.OpenFiles }),
}

// path reads a path of the host and makes it absolute. Variables are not
// expanded (rule 82), and a $ is refused where somebody would expect it.
func (d *decoder) path(v value) (string, bool) {
	if v.isNull() && v.n.Value == "~" {
		d.fail(v, "a lone ~ is YAML for no value", `write "~" in quotes, or ~/`)
		return "", false
	}
	s, ok := d.text(v)
	if !ok {
		return "", false
	}
	tilde := s == "~" || strings.HasPrefix(s, "~/")
	switch {
	case strings.HasPrefix(s, "$"):
		d.fail(v, "variables are not expanded", "write the path out, or begin it with ~/ for the home directory")
		return "", false
	case s[0] == '~' && !tilde:
		d.fail(v, "another user's home directory is not looked up", "write the path out")
		return "", false
	case tilde:
		home, err := d.home()
		if err != nil || !filepath.IsAbs(home) {
			d.fail(v, "the home directory is not known", "set HOME, or write the path out")
			return "", false
		}
		return filepath.Join(home, s[1:]), true
	case filepath.IsAbs(s):
		return filepath.Clean(s), true
	}
	abs, err := filepath.Abs(filepath.Join(d.dir, s))
	if err != nil {
		d.fail(v, "the folder of the config file is not known", "write the whole path")
		return "", false
	}
	return abs, true
}

// localPath reads a path inside the working directory, and keeps it relative.
func (d *decoder) localPath(v value) (string, bool) {
	s, ok := d.text(v)
	if !ok {
		return "", false
	}
	if !filepath.IsLocal(s) || slices.Contains(strings.Split(s, "/"), "..") {
		d.fail(v, "it must be a path inside the working directory", "write it relative to that, such as .envrc")
		return "", false
	}
	return filepath.Clean(s), true
}
