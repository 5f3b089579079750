// Package hostname holds the one canonical form of "who is it for".
//
// Every host that enters agentcage, from the config, a CONNECT line, a Host
// header, a TLS server name or a DNS question, is parsed here once. What is
// matched, injected for, resolved, dialled, verified and audited is the parsed
// Name and never the text it came from, so two parts of the program cannot
// disagree about a destination.
package hostname

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// maxLen and maxLabel are the limits of RFC 1035 section 2.3.4, for the text
// form without a trailing dot.
const (
	maxLen   = 253
	maxLabel = 63
)

// Name is a canonical host: either a DNS name of lower-case A-labels without a
// trailing dot, or an IP address. Names are comparable with == and usable as
// map keys. The zero Name is no host at all: it is within nothing.
type Name struct {
	text string     // DNS name, or the address in netip form
	addr netip.Addr // valid when the host is an IP literal
}

// Parse reads a host without a port: a DNS name in ASCII or Unicode, an IPv4
// address, or an IPv6 address with or without brackets.
//
// It refuses what any two parsers might read differently: control and
// percent-encoded bytes, empty labels, user information, IPv6 zones, and the
// legacy spellings of IPv4 (127.1, 0x7f.0.0.1, 2130706433) that end in a
// number without being a dotted quad (WHATWG URL, "ends in a number").
func Parse(s string) (Name, error) {
	if s == "" {
		return Name{}, errors.New("cannot read host: it is empty")
	}
	if s[0] == '[' {
		if len(s) < 2 || s[len(s)-1] != ']' {
			return Name{}, bad(s, "the bracket is not closed")
		}
		return parseIPv6(s, s[1:len(s)-1])
	}
	if strings.Count(s, ":") > 1 {
		return parseIPv6(s, s)
	}
	return parseName(s)
}

// ParseAuthority reads "host", "host:port", "[v6]" or "[v6]:port" (RFC 3986
// section 3.2 without user information). A missing port is returned as 0.
func ParseAuthority(s string) (Name, uint16, error) {
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
		if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
			return Name{}, 0, bad(s, "an IPv6 address with a port needs brackets")
		}
		if port == "" {
			return Name{}, 0, bad(s, "the port is empty")
		}
	}
	n, err := Parse(host)
	if err != nil || port == "" {
		return n, 0, err
	}
	p, err := ParsePort(port)
	return n, p, err
}

// ParsePort reads a TCP or UDP port, 1 to 65535, in decimal digits without
// sign or leading zero.
func ParsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("cannot read port %q: it must be 1 to 65535", clip(s))
	}
	return uint16(n), nil
}

// FromAddr returns the Name of an address. IPv4-mapped IPv6 addresses become
// the IPv4 address they stand for, and zones are dropped.
func FromAddr(a netip.Addr) Name {
	if !a.IsValid() {
		return Name{}
	}
	a = a.Unmap().WithZone("")
	return Name{text: a.String(), addr: a}
}

// MustParse is Parse for constants and tests: it panics on an error.
func MustParse(s string) Name {
	n, err := Parse(s)
	if err != nil {
		panic(err)
	}
	return n
}

// String returns the canonical text: an IPv6 address has no brackets.
func (n Name) String() string { return n.text }

// IsZero reports whether n is no host.
func (n Name) IsZero() bool { return n.text == "" }

// IsIP reports whether the host is an IP literal.
func (n Name) IsIP() bool { return n.addr.IsValid() }

// Addr returns the address of an IP literal, and the zero Addr otherwise.
func (n Name) Addr() netip.Addr { return n.addr }

// Authority returns the host in the form of a URL: IPv6 in brackets, and the
// port unless it is 0.
func (n Name) Authority(port uint16) string {
	host := n.text
	if n.addr.Is6() {
		host = "[" + host + "]"
	}
	if port == 0 {
		return host
	}
	return host + ":" + strconv.Itoa(int(port))
}

// Within reports whether n is zone or a name under it. Addresses are within
// nothing but themselves, and so is the zero Name not even within itself.
func (n Name) Within(zone Name) bool {
	if n.text == "" || zone.text == "" {
		return false
	}
	if n == zone {
		return true
	}
	if n.IsIP() || zone.IsIP() {
		return false
	}
	cut := len(n.text) - len(zone.text)
	return cut > 1 && n.text[cut-1] == '.' && n.text[cut:] == zone.text
}

// Parent returns the name without its first label, and the zero Name for a
// single label or an address. With it a table of zones is searched in as many
// steps as the name has labels.
func (n Name) Parent() Name {
	i := strings.IndexByte(n.text, '.')
	if n.IsIP() || i < 0 {
		return Name{}
	}
	return Name{text: n.text[i+1:]}
}

// Nearest finds what a table of hosts, each of which stands for every name under
// it, has for a name: the entry of the most specific host that covers it.
func Nearest[T any](table map[Name]T, name Name) (host Name, t T, ok bool) {
	if len(table) == 0 {
		return Name{}, t, false
	}
	for n := name; !n.IsZero(); n = n.Parent() {
		if t, ok = table[n]; ok {
			return n, t, true
		}
	}
	return Name{}, t, false
}

func parseIPv6(whole, s string) (Name, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is6() || a.Zone() != "" {
		return Name{}, bad(whole, "it is no IPv6 address")
	}
	return FromAddr(a), nil
}

func parseName(s string) (Name, error) {
	ascii, err := toASCII(s)
	if err != nil {
		return Name{}, bad(s, err.Error())
	}
	ascii = strings.TrimSuffix(ascii, ".")
	if len(ascii) > maxLen {
		return Name{}, bad(s, "it is longer than 253 bytes")
	}
	if err := checkLabels(ascii); err != nil {
		return Name{}, bad(s, err.Error())
	}
	if !endsInNumber(ascii) {
		return Name{text: ascii}, nil
	}
	a, err := netip.ParseAddr(ascii)
	if err != nil || isUnicode(s) {
		return Name{}, bad(s, "it ends in a number without being an IPv4 address")
	}
	return FromAddr(a), nil
}

// toASCII maps to lower-case A-labels. Plain ASCII names without an "xn--"
// label do not go through IDNA, because UTS 46 refuses hyphens that real names
// have (r3---sn.example.net) and underscores.
func toASCII(s string) (string, error) {
	if !isUnicode(s) {
		s = lower(s)
		if !strings.Contains(s, "xn--") {
			return s, nil
		}
	}
	out, err := idna.Lookup.ToASCII(strings.TrimSuffix(s, "."))
	if err == nil && utf8.ValidString(s) {
		// A name whose A-labels do not read back is one that two IDNA
		// tables would read differently.
		if again, err := idna.Lookup.ToASCII(out); err == nil && again == out {
			return out, nil
		}
	}
	return "", errors.New("it is no valid internationalised name")
}

// lower is ASCII only on purpose: strings.ToLower folds the Kelvin sign to k.
func lower(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

func isUnicode(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return true
		}
	}
	return false
}

func checkLabels(s string) error {
	for rest, more := s, true; more; {
		var label string
		label, rest, more = strings.Cut(rest, ".")
		switch {
		case label == "":
			return errors.New("it has an empty label")
		case len(label) > maxLabel:
			return errors.New("it has a label longer than 63 bytes")
		case label[0] == '-' || label[len(label)-1] == '-':
			return errors.New("it has a label that begins or ends with a hyphen")
		}
		for i := 0; i < len(label); i++ {
			if !isLabelByte(label[i]) {
				return fmt.Errorf("it has the byte %q", label[i])
			}
		}
	}
	return nil
}

// isLabelByte allows letters, digits and hyphen (RFC 1123 section 2.1) and the
// underscore, which real HTTP hosts have.
func isLabelByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

func endsInNumber(s string) bool {
	last := s[strings.LastIndexByte(s, '.')+1:]
	if strings.HasPrefix(last, "0x") {
		_, err := strconv.ParseUint("0"+last[2:], 16, 64)
		return err == nil
	}
	for i := 0; i < len(last); i++ {
		if last[i] < '0' || last[i] > '9' {
			return false
		}
	}
	return true
}

func bad(s, why string) error {
	return fmt.Errorf("cannot read host %q: %s", clip(s), why)
}

// clip keeps hostile text out of messages: names are bounded anyway.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
