//go:build wasip1

// Command wasm-go is an inspector in WebAssembly: it blocks GraphQL mutations,
// except those that the config names.
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags='-s -w' -o graphql.wasm
package main

import (
	"bytes"
	"encoding/json"
	"iter"
	"slices"
	"strings"
	"unicode"
	"unsafe"
)

// setup is what agentcage_configure gets.
type setup struct {
	Protocol int    `json:"protocol"`
	Name     string `json:"name"`
	Config   struct {
		Allow []string `json:"allow"` // names of mutations
	} `json:"config"`
}

// message is what the other functions get. Fields that are not needed are left
// out.
type message struct {
	Context struct {
		Method      string `json:"method"`
		ContentType string `json:"content_type"`
		BodyText    string `json:"body_text"`
	} `json:"context"`
}

type result struct {
	Action   string `json:"action"`
	Reason   string `json:"reason"`
	Severity string `json:"severity"`
}

var (
	allow  []string
	buffer []byte // the message; kept, so that the collector leaves it alone
	answer []byte
)

// mutations gives what stands after each "mutation": its name, or nothing when
// it has none. A field of that name is taken for one, which blocks too much
// rather than too little.
func mutations(query string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for {
			_, after, found := strings.Cut(query, "mutation")
			if !found {
				return
			}
			name := strings.TrimLeft(after, " \t\r\n,")
			end := strings.IndexFunc(name, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
			if end >= 0 {
				name = name[:end]
			}
			if !yield(name) {
				return
			}
			query = after
		}
	}
}

//go:wasmimport agentcage log
func hostLog(ptr unsafe.Pointer, size uint32)

func logLine(s string) { hostLog(unsafe.Pointer(unsafe.StringData(s)), uint32(len(s))) }

//go:wasmexport agentcage_alloc
func alloc(size uint32) unsafe.Pointer {
	if uint32(cap(buffer)) < size {
		buffer = make([]byte, size)
	}
	buffer = buffer[:size]
	return unsafe.Pointer(unsafe.SliceData(buffer))
}

//go:wasmexport agentcage_configure
func configure(_ unsafe.Pointer, size uint32) uint64 {
	var s setup
	if err := json.Unmarshal(buffer[:size], &s); err != nil {
		return say(map[string]any{"protocol": 1, "error": err.Error()})
	}
	allow = s.Config.Allow
	return say(map[string]any{"protocol": 1, "inspector": "graphql"})
}

//go:wasmexport agentcage_inspect_request
func inspectRequest(_ unsafe.Pointer, size uint32) uint64 {
	// encoding/json takes a millisecond here, so that what cannot
	// hold the word is let go first. In JSON its letters could be written as
	// \uXXXX only, and the body, which is JSON, is a text in JSON.
	if !bytes.Contains(buffer[:size], []byte("mutation")) && !bytes.Contains(buffer[:size], []byte(`\\u`)) {
		return 0
	}
	var m message
	if err := json.Unmarshal(buffer[:size], &m); err != nil {
		panic(err) // blocks
	}
	if m.Context.Method != "POST" || !strings.HasPrefix(m.Context.ContentType, "application/json") {
		return 0
	}
	var query struct {
		Query string `json:"query"`
	}
	if json.Unmarshal([]byte(m.Context.BodyText), &query) != nil {
		return 0 // no GraphQL
	}
	for name := range mutations(query.Query) {
		if !slices.Contains(allow, name) {
			logLine("mutation " + name)
			return say(result{Action: "block", Reason: "GraphQL mutation that is not allowed", Severity: "error"})
		}
	}
	return 0
}

// say keeps an answer until the next one and names it to the host.
func say(v any) uint64 {
	var err error
	if answer, err = json.Marshal(v); err != nil {
		panic(err)
	}
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(answer))))<<32 | uint64(len(answer))
}

func main() {} // not called: the module is a library
