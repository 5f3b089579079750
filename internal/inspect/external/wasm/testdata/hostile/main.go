//go:build wasip1

// Command hostile is an inspector that does what the body says.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"time"
	"unsafe"
)

var buffer, answer []byte

//go:wasmimport agentcage log
func hostLog(ptr unsafe.Pointer, size uint32)

//go:wasmexport agentcage_alloc
func alloc(size uint32) unsafe.Pointer {
	buffer = make([]byte, size)
	return unsafe.Pointer(unsafe.SliceData(buffer))
}

//go:wasmexport agentcage_configure
func configure(_ unsafe.Pointer, size uint32) uint64 {
	if strings.Contains(string(buffer), `"refuse"`) {
		return say(`{"protocol": 1, "error": "refused: ` + os.Getenv("HOME") + `"}`)
	}
	if strings.Contains(string(buffer), `"newer"`) {
		return say(`{"protocol": 2}`)
	}
	return say(`{"protocol": 1, "inspector": "hostile"}`)
}

func say(s string) uint64 {
	answer = []byte(s)
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(answer))))<<32 | uint64(len(answer))
}

func recurse(n int) int { return recurse(n+1) + 1 }

var kept [][]byte

//go:wasmexport agentcage_inspect_request
func inspectRequest(_ unsafe.Pointer, size uint32) uint64 {
	var m struct {
		Context map[string]any `json:"context"`
	}
	if err := json.Unmarshal(buffer[:size], &m); err != nil {
		panic(err)
	}
	switch word, _, _ := strings.Cut(m.Context["body_text"].(string), " "); word {
	case "hang":
		for {
		}
	case "sleep":
		time.Sleep(time.Hour)
	case "trap":
		panic("trap")
	case "exit":
		os.Exit(0)
	case "recursion":
		return uint64(recurse(0))
	case "memory":
		for {
			kept = append(kept, make([]byte, 1<<20))
		}
	case "nonsense":
		return say("nonsense")
	case "action":
		return say(`{"action": "allow"}`)
	case "long":
		return say(strings.Repeat(" ", 1<<20))
	case "outside":
		return 0xfffffff0_00001000
	case "wraps":
		return 0x10_ffffffff
	case "log":
		for range 1 << 12 {
			hostLog(unsafe.Pointer(unsafe.SliceData(buffer)), 1<<31)
			hostLog(unsafe.Pointer(unsafe.SliceData(buffer)), size)
		}
		return 0
	case "see":
		_, file := os.ReadFile("/etc/passwd")
		all, _ := json.Marshal([]any{len(os.Args), len(os.Environ()), file != nil, time.Now().Year() < 2024, m.Context["url"], m.Context["body_size"]})
		text, _ := json.Marshal(map[string]string{"action": "flag", "reason": string(all), "severity": "info"})
		return say(string(text))
	case "flag":
		return say(`{"inspector": "x", "action": "flag", "reason": "odd\n\u001b[31m", "severity": "low", "score": 1, "metadata": {"a": [1]}}`)
	}
	return 0
}

func main() {}
