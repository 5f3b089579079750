package config

import (
	"errors"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/hostname"
)

func TestAllow(t *testing.T) {
	c := Default()
	if err := c.Allow("Example.com.", "=api.example.org", "mirror.test:8443"); err != nil {
		t.Fatal(err)
	}
	want := []Entry{
		{Host: hostname.MustParse("example.com")},
		{Host: hostname.MustParse("api.example.org"), Exact: true},
		{Host: hostname.MustParse("mirror.test"), Ports: []uint16{8443}},
	}
	if c.Domains.Mode != Allowlist || len(c.Domains.Entries) != len(want) {
		t.Fatalf("domains = %+v", c.Domains)
	}
	for i, e := range c.Domains.Entries {
		if e.Host != want[i].Host || e.Exact != want[i].Exact || len(e.Ports) != len(want[i].Ports) {
			t.Errorf("entry %d = %+v, want %+v", i, e, want[i])
		}
	}
}

func TestAllowPrivate(t *testing.T) {
	c := Default()
	if err := errors.Join(c.Allow("a.example"), c.AllowPrivate("b.example")); err != nil {
		t.Fatal(err)
	}
	if c.Domains.Entries[0].Private || !c.Domains.Entries[1].Private {
		t.Errorf("entries = %+v", c.Domains.Entries)
	}
}

func TestAllowRefuses(t *testing.T) {
	for _, host := range []string{"", "*", "*.example.com", "com", "co.uk", "https://example.com", "a b", "example.com:0", "127.1", "a\x00b"} {
		c := Default()
		err := c.Allow(host)
		if err == nil || !strings.HasPrefix(err.Error(), "cannot allow ") {
			t.Errorf("Allow(%q) = %v", host, err)
		}
		if c.Domains.Reachable() {
			t.Errorf("Allow(%q) failed and opened something", host)
		}
	}
	c := Default()
	c.Domains = Domains{Mode: Blocklist, Entries: []Entry{{Host: hostname.MustParse("example.com")}}}
	if err := c.Allow("example.org"); err == nil {
		t.Error("a blocklist was added to")
	}
}
