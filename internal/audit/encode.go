package audit

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// Limits on what one record may hold, in bytes of encoded JSON. They add up to
// less than maxRecord whatever the agent sends, so that one write stays small.
const (
	maxText    = 8 << 10 // path, url, reason
	maxHost    = 1 << 10
	maxWord    = 256 // method, source, kind, id, names in lists
	maxWhy     = 1 << 10
	maxList    = 32 // elements
	maxFinding = 8  // elements

	maxRecord = 64 << 10
)

// Redactor takes secrets out of text. It is called for every string of a
// record before the string is cut or encoded.
type Redactor func(string) string

// Append appends the record as one line of JSON with its newline: the fields
// in the original's order, Python's default separators, and nothing but
// printable ASCII, so that no byte of the agent's reaches a terminal or
// breaks a line. Long fields are cut and end in a marker. A nil Redactor
// changes nothing.
func (r *Record) Append(dst []byte, redact Redactor) []byte {
	e := encoder{buf: dst, redact: redact}
	e.raw(`{"ts": "`)
	e.buf = appendTime(e.buf, r.Time)
	e.raw(`", "direction": "`)
	e.raw(direction(r.Direction))
	e.field(`", "method": `, r.Method, maxWord)
	e.field(`, "host": `, r.Host, maxHost)
	e.raw(`, "port": `)
	e.buf = strconv.AppendUint(e.buf, uint64(r.Port), 10)
	e.field(`, "path": `, r.Path, maxText)
	e.field(`, "url": `, r.URL, maxText)
	e.raw(`, "decision": "`)
	e.raw(decision(r.Decision))
	e.field(`", "reason": `, r.Reason, maxText)
	e.optional(`, "source": `, r.Source)
	e.list(`, "secrets_injected": [`, r.SecretsInjected)
	e.list(`, "secrets_redacted": [`, r.SecretsRedacted)
	e.findings(r.Inspectors)
	e.optional(`, "kind": `, r.Kind)
	e.optional(`, "id": `, r.ID)
	if r.Count > 1 {
		e.raw(`, "count": `)
		e.buf = strconv.AppendInt(e.buf, int64(r.Count), 10)
	}
	e.raw("}\n")
	return e.buf
}

// BlockBody is the body of a refusal: the original's keys and order, with the
// id under which the audit log has it.
func BlockBody(reason, host, id string) []byte {
	return appendBody(`{"blocked": true, "reason": `, reason, host, id)
}

// ErrorBody is the body of an answer to a request that was allowed and came to
// nothing.
func ErrorBody(reason, host, id string) []byte {
	return appendBody(`{"error": "upstream_error", "reason": `, reason, host, id)
}

func appendBody(head, reason, host, id string) []byte {
	b := append(make([]byte, 0, 160), head...)
	b = AppendString(b, reason, maxText)
	b = append(b, `, "host": `...)
	b = AppendString(b, host, maxHost)
	b = append(b, `, "by": "agentcage", "id": `...)
	b = AppendString(b, id, maxWord)
	return append(b, '}')
}

type encoder struct {
	buf    []byte
	redact Redactor
}

func (e *encoder) raw(s string) { e.buf = append(e.buf, s...) }

// field is the funnel: every string of a record passes through here.
func (e *encoder) field(key, s string, limit int) {
	e.raw(key)
	if e.redact != nil {
		s = e.redact(s)
	}
	e.buf = AppendString(e.buf, s, limit)
}

func (e *encoder) optional(key, s string) {
	if s != "" {
		e.field(key, s, maxWord)
	}
}

func (e *encoder) list(key string, list []string) {
	if len(list) == 0 {
		return
	}
	e.raw(key)
	for i, s := range list {
		sep := ", "
		if i == 0 {
			sep = ""
		}
		if i == maxList-1 && len(list) > maxList {
			e.field(sep, strconv.Itoa(len(list)-i)+" more", maxWord)
			break
		}
		e.field(sep, s, maxWord)
	}
	e.raw("]")
}

// findings keeps the first ones and the last, which is the one that blocked.
func (e *encoder) findings(fs []Finding) {
	if len(fs) == 0 {
		return
	}
	e.raw(`, "inspectors": [`)
	for i, f := range fs {
		if i > 0 && i < len(fs)-1 && i >= maxFinding-1 {
			continue
		}
		if i > 0 {
			e.raw(", ")
		}
		e.field(`{"name": `, f.Name, maxWord)
		e.field(`, "action": `, actionWord(f.Action), maxWord)
		e.field(`, "reason": `, f.Reason, maxWhy)
		e.field(`, "severity": `, f.Severity, maxWord)
		e.optional(`, "rule": `, f.Rule)
		e.optional(`, "mode": `, mode(f.Mode))
		e.raw("}")
	}
	e.raw("]")
}

func direction(s string) string {
	if s == "inbound" {
		return s
	}
	return "outbound"
}

func decision(s string) string {
	if s == "allowed" || s == "flagged" {
		return s
	}
	return "blocked"
}

func mode(s string) string {
	if s == "observe" || s == "exempt" {
		return s
	}
	return ""
}

// appendTime writes UTC in ISO 8601 with "+00:00", and microseconds only when
// there are any, as Python's datetime.isoformat does.
func appendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	if t.Nanosecond() < 1000 {
		return append(t.AppendFormat(dst, "2006-01-02T15:04:05"), "+00:00"...)
	}
	return append(t.AppendFormat(dst, "2006-01-02T15:04:05.000000"), "+00:00"...)
}

const hexDigits = "0123456789abcdef"

// AppendString appends s as a JSON string of printable ASCII, escaped as
// Python's json.dumps does it; bytes that are no UTF-8 become U+FFFD. No more
// than limit bytes are written for the text; when s is longer it is cut and
// ends in a marker that says how many bytes of s are missing.
func AppendString(dst []byte, s string, limit int) []byte {
	dst = append(dst, '"')
	start := len(dst)
	for i := 0; i < len(s); {
		if len(dst)-start > limit-markerLen {
			if rest := len(s) - i; !fits(s[i:], limit-(len(dst)-start)) {
				dst = append(dst, `[... `...)
				dst = strconv.AppendInt(dst, int64(rest), 10)
				dst = append(dst, ` bytes]`...)
				break
			}
		}
		c := s[i]
		if c < utf8.RuneSelf {
			dst = appendASCII(dst, c)
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		dst = appendRune(dst, r)
		i += n
	}
	return append(dst, '"')
}

// markerLen is room for one escaped rune and the marker of a cut.
const markerLen = 12 + len("[...  bytes]") + 10

// fits reports whether what is left of a string needs no more than room bytes
// even if every byte of it is escaped.
func fits(rest string, room int) bool { return len(rest)*6 <= room }

func appendASCII(dst []byte, c byte) []byte {
	switch {
	case c == '"' || c == '\\':
		return append(dst, '\\', c)
	case ' ' <= c && c <= '~':
		return append(dst, c)
	case c == '\n':
		return append(dst, '\\', 'n')
	case c == '\r':
		return append(dst, '\\', 'r')
	case c == '\t':
		return append(dst, '\\', 't')
	case c == '\b':
		return append(dst, '\\', 'b')
	case c == '\f':
		return append(dst, '\\', 'f')
	}
	return appendUnit(dst, uint16(c))
}

func appendRune(dst []byte, r rune) []byte {
	if r < 0x10000 {
		return appendUnit(dst, uint16(r))
	}
	r -= 0x10000
	dst = appendUnit(dst, uint16(0xd800+r>>10))
	return appendUnit(dst, uint16(0xdc00+r&0x3ff))
}

// appendUnit writes one UTF-16 code unit.
func appendUnit(dst []byte, u uint16) []byte {
	return append(dst, '\\', 'u', hexDigits[u>>12], hexDigits[u>>8&15], hexDigits[u>>4&15], hexDigits[u&15])
}

// actionWord is the verb that the original writes for a finding's decision.
func actionWord(decision string) string {
	switch decision {
	case "blocked":
		return "block"
	case "flagged":
		return "flag"
	}
	return decision
}
