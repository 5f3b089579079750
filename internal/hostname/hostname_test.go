package hostname

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct{ in, want string }{
		{"Example.COM", "example.com"},
		{"example.com.", "example.com"},
		{"bücher.example", "xn--bcher-kva.example"},
		{"XN--BCHER-KVA.example", "xn--bcher-kva.example"},
		{"ＥＸＡＭＰＬＥ．ｃｏｍ", "example.com"},
		{"my_bucket.s3.example", "my_bucket.s3.example"},
		{"r3---sn.example", "r3---sn.example"},
		{"localhost", "localhost"},
		{"127.0.0.1", "127.0.0.1"},
		{"[::1]", "::1"},
		{"::1", "::1"},
		{"[2001:DB8::0001]", "2001:db8::1"},
		{"[::ffff:10.0.0.1]", "10.0.0.1"},
		{"1.2.3.4.example", "1.2.3.4.example"},
	}
	for _, tt := range tests {
		n, err := Parse(tt.in)
		if err != nil || n.String() != tt.want {
			t.Errorf("Parse(%q) = %q, %v; want %q", tt.in, n, err, tt.want)
		}
	}
}

// TestParseRefuses is rules.md 13, 14 and peer-holes A1, A2.
func TestParseRefuses(t *testing.T) {
	tests := []string{
		"", ".", "..", "example.com..", ".example.com", "a..b", "[[::1]]", "[::1", "::1]", "[::1]x",
		"[fe80::1%eth0]", "fe80::1%25eth0", "evil.com\x00.allowed.com", "a b", "a/b", "a@b", "a%2eb",
		"a\nb", "127.1", "0x7f.0.0.1", "2130706433", "0177.0.0.1", "1.2.3.4.5", "256.1.1.1", "0x7f000001",
		"-a.com", "a-.com", "xn--\u00fc.com", "xn--zzzzzzz--.com", "１２７.0.0.1", "\u212a\u0000.com",
		strings.Repeat("a", 64) + ".com", strings.Repeat("a.", 127) + "com", "host:80", "*.example.com",
	}
	for _, in := range tests {
		if n, err := Parse(in); err == nil {
			t.Errorf("Parse(%q) = %q, want an error", in, n)
		} else if n != (Name{}) {
			t.Errorf("Parse(%q) returned %q beside its error", in, n)
		}
	}
}

func TestParseAuthority(t *testing.T) {
	tests := []struct {
		in, host string
		port     uint16
	}{
		{"example.com", "example.com", 0},
		{"example.com:8443", "example.com", 8443},
		{"[::1]:443", "::1", 443},
		{"[::1]", "::1", 0},
		{"10.0.0.1:80", "10.0.0.1", 80},
	}
	for _, tt := range tests {
		n, p, err := ParseAuthority(tt.in)
		if err != nil || n.String() != tt.host || p != tt.port {
			t.Errorf("ParseAuthority(%q) = %q, %d, %v", tt.in, n, p, err)
		}
	}
	for _, in := range []string{"", ":80", "a:", "a:0", "a:65536", "a:+80", "a:080", "::1:443x", "::1:80", "u@a:80", "a:80:80", "[::1]:", "[::1]80"} {
		if n, p, err := ParseAuthority(in); err == nil {
			t.Errorf("ParseAuthority(%q) = %q, %d, want an error", in, n, p)
		}
	}
}

func TestWithin(t *testing.T) {
	tests := []struct {
		name, zone string
		want       bool
	}{
		{"example.com", "example.com", true},
		{"a.b.example.com", "example.com", true},
		{"notexample.com", "example.com", false},
		{"example.com", "a.example.com", false},
		{"com", "example.com", false},
		{"10.0.0.1", "10.0.0.1", true},
		{"10.0.0.1", "0.0.1", false},
	}
	for _, tt := range tests {
		zone := Name{text: tt.zone}
		if n, err := Parse(tt.zone); err == nil {
			zone = n
		}
		if got := MustParse(tt.name).Within(zone); got != tt.want {
			t.Errorf("%s within %s = %v, want %v", tt.name, tt.zone, got, tt.want)
		}
	}
	if (Name{}).Within(Name{}) || MustParse("a").Within(Name{}) {
		t.Error("the zero Name is within something")
	}
}

func TestParentAndAuthority(t *testing.T) {
	if p := MustParse("a.b.c").Parent(); p != MustParse("b.c") {
		t.Errorf("parent of a.b.c is %q", p)
	}
	if !MustParse("c").Parent().IsZero() || !MustParse("10.0.0.1").Parent().IsZero() {
		t.Error("a single label or an address has a parent")
	}
	if got := MustParse("[::1]").Authority(443); got != "[::1]:443" {
		t.Errorf("authority = %q", got)
	}
	if FromAddr(netip.MustParseAddr("::ffff:1.2.3.4")) != MustParse("1.2.3.4") {
		t.Error("a mapped address is not its IPv4 address")
	}
}

// FuzzParse holds that the canonical form is a fixed point: what is matched is
// what is dialled, whatever the spelling was.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"example.com.", "[::1]", "bücher.example", "127.1", "a\x00b", "xn--bcher-kva", "[[::1]]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(n.String())
		if err != nil || again != n {
			t.Fatalf("Parse(%q) = %q, but that parses to %q, %v", s, n, again, err)
		}
		if a, p, err := ParseAuthority(n.Authority(443)); err != nil || a != n || p != 443 {
			t.Fatalf("authority of %q does not come back: %q %d %v", n, a, p, err)
		}
		for _, c := range []byte(n.String()) {
			if c <= ' ' || c >= 0x7f {
				t.Fatalf("Parse(%q) keeps the byte %q", s, c)
			}
		}
	})
}

func TestNearest(t *testing.T) {
	table := map[Name]int{MustParse("example.com"): 1, MustParse("a.example.com"): 2, MustParse("192.0.2.7"): 3}
	for name, want := range map[string]int{
		"example.com": 1, "b.example.com": 1, "a.example.com": 2, "x.y.a.example.com": 2, "192.0.2.7": 3,
		"com": 0, "notexample.com": 0, "0.2.7.example": 0, "192.0.2.8": 0,
	} {
		host, got, ok := Nearest(table, MustParse(name))
		if got != want || ok != (want > 0) || ok == host.IsZero() {
			t.Errorf("%s: %v %d %v, want %d", name, host, got, ok, want)
		}
	}
	if _, _, ok := Nearest(table, Name{}); ok {
		t.Error("no name is covered")
	}
	if _, _, ok := Nearest[int](nil, MustParse("a.test")); ok {
		t.Error("nothing covers")
	}
}
