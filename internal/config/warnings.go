package config

import "fmt"

// Warning is something in a valid config that its author may not have meant.
type Warning struct {
	Position // Line is 0 when it is about something that is not there
	File     string
	Text     string
}

// String prints "FILE:LINE:COL: text", in one line.
func (w Warning) String() string {
	switch {
	case w.File == "":
		return w.Text
	case w.Line == 0:
		return printable(w.File) + ": " + w.Text
	}
	return fmt.Sprintf("%s:%d:%d: %s", printable(w.File), w.Line, w.Column, w.Text)
}

// Reachable reports whether the config lets any host be reached at all.
func (d Domains) Reachable() bool {
	if len(d.Passthrough) > 0 {
		return true
	}
	return (d.Mode == Allowlist || d.Mode == Blocklist) && len(d.Entries) > 0
}

// Warnings returns what is worth telling whoever wrote the config: older
// keys, sections that are not enforced, zones under which strangers have
// names, and a cage that reaches nothing. Fields that were changed since Parse count.
func (c *Config) Warnings() []Warning {
	out := append([]Warning(nil), c.warnings...)
	if !c.Domains.Reachable() {
		out = append(out, Warning{File: c.File, Text: "nothing is reachable: domains lists no host"})
	}
	if c.RateLimit.RequestsPerSecond > 0 && c.RateLimit.Burst == 0 {
		out = append(out, Warning{File: c.File, Text: "nothing is reachable: rate_limit.burst is 0"})
	}
	return out
}
