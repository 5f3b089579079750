package gateway

import (
	"context"
	"net/http"
	"testing"

	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

// sendHeader decides about the same header several times, as the second and
// third request of a client have it, and returns the last verdict.
func sendHeader(p *policy, name, value string) inspect.Verdict {
	r := &inspect.Request{Method: "GET", Scheme: "https", Host: hostname.MustParse("api.example.com"), Port: 443, Path: "/"}
	var v inspect.Verdict
	for range 4 {
		v = p.DecideContent(context.Background(), &inspect.Content{
			Request: r, Kind: inspect.KindRequest, Direction: inspect.ToServer, Header: http.Header{name: {value}},
		})
	}
	return v
}

// TestWhatIsRememberedHidesNothing: that a header came before and was fine says
// nothing about new rules, about values that are known since, and about the same
// bytes under another name; and what was found once is found every time.
func TestWhatIsRememberedHidesNothing(t *testing.T) {
	const header, value = "X-Thing", "blue-whale-4711"
	build := func(more string, s *state) *policy {
		c := parse(t, "domains: {allow: [example.com]}\n"+more)
		if err := s.hold(c, env(map[string]string{"THING": value})); err != nil {
			t.Fatal(err)
		}
		p, err := newPolicy(c, s, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	s := new(state)
	before := build("", s)
	if v := sendHeader(before, header, value); v.Decision != inspect.Allowed {
		t.Fatalf("%+v", v)
	}
	if v := sendHeader(build("secrets: {extra_patterns: [{name: whale, pattern: 'blue-whale-[0-9]+'}]}\n", s), header, value); v.Allowed() {
		t.Error("a new rule does not see a header that came before")
	}
	named := build("secrets: {extra_patterns: [{name: whale, pattern: 'X-Other: blue-whale-[0-9]+'}]}\n", new(state))
	if v := sendHeader(named, header, value); !v.Allowed() {
		t.Errorf("the control: %+v", v)
	}
	if v := sendHeader(named, "X-Other", value); v.Allowed() {
		t.Error("the same value under another name is not seen")
	}
	build("secrets: {extra_patterns: [{name: whale, env: THING}]}\n", s)
	if v := sendHeader(before, header, value); v.Allowed() {
		t.Error("a value that is known now passes, because it came before")
	}
	random := "q7ZkX0LwYmN4xQRt2bVfPj9sGhUe3cAoDi5TnKrW8lMzE1Sy6BpJvCuHgFdOaIqX"
	for range 2 {
		if v := sendHeader(build("", new(state)), header, random); v.Allowed() {
			t.Error("random data passes when it comes again")
		}
	}
}
