package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// What inspectors of a user's own add at the median, in milliseconds, and what
// a body of 1 MiB takes.
const (
	chatTime    = "post_1MiB_json_median_ms"
	denseTime   = "post_1MiB_dense_median_ms"
	plainMedian = "paced_median_ms"
	pythonAdds  = "python_added_median_ms"
	wasmAdds    = "wasm_added_median_ms"
	whenAdds    = "when_added_median_ms"
)

// pacedRate is how many requests a second inspectors of a user's own are
// measured at.
const pacedRate = 1000

// chatBody is JSON of about the size given as programs that talk to language
// models send it: prose, code and lists of files.
func chatBody(size int) []byte {
	prose := "The function that reads the configuration returns an error when a key is unknown, and the message names the " +
		"line. Could you change it so that all unknown keys are listed at once? The tests should still pass."
	code := "func (s *Source) Load(path string) (*Config, error) {\n\tdata, err := os.ReadFile(path)\n\tif err != nil {\n" +
		"\t\treturn nil, fmt.Errorf(\"cannot read %s: %w\", path, err)\n\t}\n\tvar c Config\n\treturn &c, decodeStrictly(data, &c)\n}\n"
	list := "internal/config/load.go\ninternal/config/load_test.go\nhttps://example.test/a/b?query=value&page=2\n"
	var all []map[string]string
	for n, total := 0, 0; total < size; n++ {
		for role, text := range map[string]string{"user": prose, "assistant": code + prose, "tool": list} {
			all = append(all, map[string]string{"role": role, "content": fmt.Sprintf("%s%d", text, n)})
			total += len(text) + 60
		}
	}
	b, err := json.Marshal(map[string]any{"model": "some-model-2026", "messages": all})
	if err != nil {
		panic(err) // there is nothing in it that has no JSON
	}
	return b
}

// beginnings are those of secrets: text that is made of them meets a rule at
// nearly every word.
var beginnings = strings.Fields(`ghp_ gho_ github_pat_ glpat- xoxb- xoxp-1 AKIA ASIA AIza sk-proj- sk-ant- sk_live_ rk_live_ whsec_ npm_
	pypi- dop_v1_ hf_ r8_ SG. key- eyJ ya29. dckr_pat_ shpat_ ATATT PMAK- NRAK- lin_api_ figd_ secret_ password= api_key= token= access_token=
	client_secret: aws_secret_access_key= azure datadog heroku twilio stripe slack discord cloudflare okta snyk asana fastly sentry grafana
	-----BEGIN hooks.slack.com/services/ ://user: mongodb+srv:// Bearer Basic`)

func denseBody(size int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	b.WriteString(`{"text":"`)
	for b.Len() < size {
		fmt.Fprintf(&b, "%s%d ", beginnings[r.IntN(len(beginnings))], r.IntN(1000))
	}
	b.WriteString(`"}`)
	return []byte(b.String())
}

// large is a scenario: bodies of 1 MiB one after the other, for what each takes.
func large(cl client, c contender, _ settings, res *result) error {
	for metric, body := range map[string][]byte{chatTime: chatBody(1 << 20), denseTime: denseBody(1 << 20)} {
		late, err := cl.oneByOne(7, cl.post("/sink", body))
		if err != nil {
			return wrap("POST of 1 MiB", err)
		}
		res.add(c.name, metric, median(late))
	}
	return nil
}

// oneByOne returns the milliseconds of each of n requests on one connection.
func (c client) oneByOne(n int, request []byte) ([]float64, error) {
	conn, err := c.dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var late []float64
	for range n {
		begin := time.Now()
		if err := conn.roundTrip(request, http.MethodPost); err != nil {
			return nil, err
		}
		late = append(late, float64(time.Since(begin).Microseconds())/1000)
	}
	return late, nil
}

// paced sends pacedRate requests a second for d, whatever the answers take, and
// returns the milliseconds from when each was due to its answer.
func (c client) paced(d time.Duration, request []byte) ([]float64, error) {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		late  []float64
		first error
		due   = make(chan time.Time, int(d.Seconds()*pacedRate)+1)
	)
	for range 32 {
		conn, err := c.dial()
		if err != nil {
			close(due)
			return nil, err
		}
		wg.Go(func() {
			defer conn.Close()
			for at := range due {
				err := conn.roundTrip(request, http.MethodPost)
				mu.Lock()
				late = append(late, float64(time.Since(at).Microseconds())/1000)
				failed := err != nil
				if failed && first == nil {
					first = err
				}
				mu.Unlock()
				if failed {
					return
				}
			}
		})
	}
	begin := time.Now()
	for n := range cap(due) {
		at := begin.Add(time.Duration(n) * time.Second / pacedRate)
		time.Sleep(time.Until(at))
		due <- at
	}
	close(due)
	wg.Wait()
	return late, first
}

// pythonInspector is a check as users write it: a look at the body and at a
// header of each request.
const pythonInspector = `from inspectors.base import Inspector, InspectionResult


class Check(Inspector):
    name = "bench-check"

    def inspect_request(self, ctx):
        if ctx.method == "DELETE" or "forbidden words" in ctx.body_text or "X-Forbidden" in ctx.headers:
            return InspectionResult(self.name, "block", "forbidden", "error")
        return None
`

// own are configs with one inspector of a user's own each, by the metric of
// what it adds. What cannot be had here is left out, with a word.
func (l *lab) own(ctx context.Context) map[string]string {
	out := map[string]string{
		whenAdds: "inspectors:\n  - name: bench-when\n    when: 'method == \"DELETE\" && host endsWith \"example.com\"'\n",
	}
	script := filepath.Join(l.dir, "check.py")
	if _, err := exec.LookPath("python3"); err != nil {
		progress("Python is left out: %v", err)
	} else if err := os.WriteFile(script, []byte(pythonInspector), 0o644); err != nil {
		progress("Python is left out: %v", err)
	} else {
		out[pythonAdds] = "inspectors:\n  - {name: bench-python, path: " + script + "}\n"
	}
	module := filepath.Join(l.dir, "example.wasm")
	build := exec.CommandContext(ctx, "go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", module, "./examples/inspectors/wasm-go")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		progress("WebAssembly is left out: %v: %s", err, said)
	} else {
		out[wasmAdds] = "inspectors:\n  - {name: bench-wasm, path: " + module + ", config: {allow: [Q]}}\n"
	}
	return out
}

// measureOwn runs the gateway without and with each inspector of a user's own,
// in turns, at one pace. What is added is what the medians of one turn differ
// by.
func measureOwn(ctx context.Context, l *lab, binary string, s settings, res *result) error {
	if _, err := os.Stat(binary); err != nil {
		return nil
	}
	configs := l.own(ctx)
	configs[plainMedian] = ""
	clients := map[string]client{}
	for metric, more := range configs {
		p, err := l.startOurs(ctx, binary, more)
		if err != nil {
			progress("%s is left out: %v", metric, err)
			continue
		}
		defer p.stop()
		clients[metric] = client{proxy: p.addr, lab: l}
	}
	body := []byte(`{"query": "query Q { ` + strings.Repeat("field ", 160) + `}"}`)
	// Many short turns: what comes from elsewhere hits few of the differences.
	const cuts = 4
	progress("inspectors of a user's own, %d turns", cuts*s.Rounds)
	for range cuts * s.Rounds {
		medians := map[string]float64{}
		for metric, cl := range clients {
			late, err := cl.paced(s.Paced/cuts, cl.post("/sink", body))
			if err != nil {
				return fmt.Errorf("%s: %w", metric, err)
			}
			medians[metric] = median(late)
		}
		for metric, m := range medians {
			if metric == plainMedian {
				res.add(ours, metric, m)
			} else {
				res.add(ours, metric, m-medians[plainMedian])
			}
		}
	}
	return nil
}
