package config

import (
	"fmt"
	"slices"
	"time"
)

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
// names, exceptions that open much or have ended, and a cage that reaches nothing. Fields that were changed since Parse count.
func (c *Config) Warnings() []Warning {
	out := append([]Warning(nil), c.warnings...)
	observed := slices.ContainsFunc(c.Observe, func(e Exception) bool { return e.Inspector == "domain" })
	if !c.Domains.Reachable() && !observed {
		out = append(out, Warning{File: c.File, Text: "nothing is reachable: domains lists no host"})
	}
	if c.RateLimit.RequestsPerSecond > 0 && c.RateLimit.Burst == 0 {
		out = append(out, Warning{File: c.File, Text: "nothing is reachable: rate_limit.burst is 0"})
	}
	for _, e := range slices.Concat(c.Observe, c.Exempt) {
		if !e.InForce(time.Now()) {
			out = append(out, Warning{Position: e.Position, File: c.File, Text: "it ended " + e.Until.Format(time.RFC3339) + " and has no effect; remove it"})
		}
	}
	return out
}
