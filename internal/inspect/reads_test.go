package inspect

import (
	"context"
	"testing"
)

// picky says what it reads, and blocks whatever it is asked about.
type picky struct {
	reads Reads
	panic bool
}

func (picky) Name() string { return "picky" }

func (p picky) Reads(*Request) Reads {
	if p.panic {
		panic("secret text")
	}
	return p.reads
}

func (p picky) InspectContent(context.Context, *Content) Result {
	return Done(Finding{Reason: "seen", Severity: Error})
}

// plain is an inspector without an opinion on what it reads.
type plain struct{}

func (plain) Name() string { return "plain" }

func (plain) InspectContent(context.Context, *Content) Result {
	return Done(Finding{Reason: "seen", Severity: Error})
}

// TestReads holds that an inspector is asked about what it reads and about
// nothing else, and that one that cannot say is asked about everything.
func TestReads(t *testing.T) {
	pieces := map[string]*Content{
		"request":   {Kind: KindRequest, Direction: ToServer},
		"window":    {Kind: KindWindow, Direction: ToServer},
		"message":   {Kind: KindMessage, Direction: ToServer},
		"trailer":   {Kind: KindTrailer, Direction: ToServer},
		"websocket": {Kind: KindWebSocket, Direction: ToServer},
		"and back":  {Kind: KindWebSocket, Direction: ToClient},
		"response":  {Kind: KindResponse, Direction: ToClient},
		"event":     {Kind: KindEvent, Direction: ToClient},
		"answer":    {Kind: KindMessage, Direction: ToClient},
		"zero":      {},
	}
	request := []string{"request", "window", "message", "trailer"}
	messages := []string{"websocket", "and back"}
	response := []string{"response", "event", "answer"}
	for _, tt := range []struct {
		name string
		in   ContentInspector
		want [][]string
	}{
		{"nothing", picky{}, nil},
		{"requests", picky{reads: Reads{Request: true}}, [][]string{request}},
		{"messages", picky{reads: Reads{Messages: true}}, [][]string{messages}},
		{"responses", picky{reads: Reads{Responses: true}}, [][]string{response}},
		{"does not say", plain{}, [][]string{request, messages}},
		{"panics", picky{panic: true}, [][]string{request, messages, response}},
	} {
		seen := map[string]bool{"zero": true}
		for _, group := range tt.want {
			for _, name := range group {
				seen[name] = true
			}
		}
		c := NewChain().WithContent(tt.in)
		for name, piece := range pieces {
			piece := Content{Request: &Request{}, Kind: piece.Kind, Direction: piece.Direction}
			if v := c.DecideContent(context.Background(), &piece); v.Allowed() == seen[name] {
				t.Errorf("%s: %s is %v", tt.name, name, v.Decision)
			}
		}
	}
	var none *Chain
	if none.Reads(&Request{}) != (Reads{}) || NewChain().Reads(&Request{}) != (Reads{}) {
		t.Error("a chain without inspectors of content reads something")
	}
	both := NewChain().WithContent(picky{reads: Reads{Request: true}}, picky{reads: Reads{Responses: true}})
	if both.Reads(&Request{}) != (Reads{Request: true, Responses: true}) {
		t.Errorf("two inspectors: %+v", both.Reads(&Request{}))
	}
}
