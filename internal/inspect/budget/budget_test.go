package budget

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

// zone makes one destination of all names under example.com.
func zone(n hostname.Name) hostname.Name {
	if z := hostname.MustParse("example.com"); n.Within(z) {
		return z
	}
	return n
}

func day(l config.Limits) config.Budget {
	return config.Budget{Enabled: true, Window: 24 * time.Hour, Each: l}
}

func message(host string, n int) *inspect.Content {
	r := &inspect.Request{Method: "GET", Scheme: "https", Host: hostname.MustParse(host), Port: 443, Path: "/", URL: &url.URL{Path: "/"}}
	return &inspect.Content{Request: r, Kind: inspect.KindWindow, Direction: inspect.ToServer, Body: make([]byte, n)}
}

func request(host string) *inspect.Content {
	c := message(host, 0)
	c.Kind = inspect.KindRequest
	return c
}

func chain(in *Inspector) *inspect.Chain { return inspect.NewChain(in).WithContent(in) }

func send(in *Inspector, c *inspect.Content) inspect.Verdict {
	return chain(in).DecideContent(context.Background(), c)
}

func expect(t *testing.T, what string, v inspect.Verdict, d inspect.Decision, reason string) {
	t.Helper()
	if v.Decision != d || v.Reason != reason {
		t.Errorf("%s: %s %q, want %s %q", what, v.Decision, v.Reason, d, reason)
	}
}

func TestThresholds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := New(day(config.Limits{Bytes: config.Threshold{Flag: 100, Block: 250}}), &State{}, zone)
		expect(t, "up to the flag", send(in, message("a.example.com", 100)), inspect.Allowed, "")
		expect(t, "over it", send(in, message("b.example.com", 1)), inspect.Flagged, "budget: 101 bytes to example.com in 24h (flag at 100)")
		expect(t, "no news", send(in, message("b.example.com", 99)), inspect.Allowed, "")
		expect(t, "twice the flag", send(in, message("b.example.com", 1)), inspect.Flagged, "budget: 201 bytes to example.com in 24h (flag at 100)")
		expect(t, "over the limit", send(in, message("b.example.com", 50)), inspect.Blocked, "budget: 251 bytes to example.com in 24h (block at 250)")
		expect(t, "what is left", send(in, message("b.example.com", 49)), inspect.Allowed, "")
		expect(t, "nothing is left", send(in, message("b.example.com", 1)), inspect.Blocked, "budget: 251 bytes to example.com in 24h (block at 250)")
		expect(t, "nothing needs nothing", send(in, message("b.example.com", 0)), inspect.Allowed, "")
		expect(t, "another destination", send(in, message("other.test", 100)), inspect.Allowed, "")
		if v := send(in, message("b.example.com", 1)); v.Status != http.StatusForbidden || v.Findings[0].Rule != "bytes" {
			t.Errorf("%+v", v)
		}
	})
}

func TestRequestsAndTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := day(config.Limits{Requests: config.Threshold{Block: 2}})
		cfg.Total = config.Limits{Requests: config.Threshold{Flag: 2, Block: 4}, Bytes: config.Threshold{Block: 400}}
		in := New(cfg, &State{}, zone)
		expect(t, "1", send(in, request("a.example.com")), inspect.Allowed, "")
		expect(t, "2", send(in, request("a.example.com")), inspect.Allowed, "")
		expect(t, "3", send(in, request("a.example.com")), inspect.Blocked, "budget: 3 requests to example.com in 24h (block at 2)")
		expect(t, "another", send(in, request("b.test")), inspect.Flagged, "budget: 3 requests from the cage in 24h (flag at 2)")
		expect(t, "a message is no request", send(in, message("a.example.com", 1)), inspect.Allowed, "")
		expect(t, "4", send(in, request("b.test")), inspect.Allowed, "")
		expect(t, "5", send(in, request("c.test")), inspect.Blocked, "budget: 5 requests from the cage in 24h (block at 4)")
		if v := send(in, message("d.test", 400)); v.Allowed() || v.Findings[0].Rule != "total-bytes" {
			t.Errorf("%+v", v)
		}
	})
}

// TestHostNames is exfiltration by labels: a thousand names under one entry are
// one destination, and their number is what carries data.
func TestHostNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := New(day(config.Limits{Hosts: config.Threshold{Flag: 2, Block: 4}}), &State{}, zone)
		for i, want := range []string{
			"", "", "budget: 3 host names under example.com in 24h (flag at 2)", "",
			"budget: 5 host names under example.com in 24h (block at 4)",
		} {
			if v := send(in, request(fmt.Sprintf("data%d.example.com", i))); v.Reason != want {
				t.Errorf("%d: %q, want %q", i, v.Reason, want)
			}
		}
		expect(t, "a name that is known", send(in, request("data0.example.com")), inspect.Allowed, "")
		expect(t, "another destination", send(in, request("data5.test")), inspect.Allowed, "")
		expect(t, "the blocked one again", send(in, request("data4.example.com")), inspect.Blocked, "budget: 5 host names under example.com in 24h (block at 4)")
	})
}

// TestMeasure counts what goes out over the wire.
func TestMeasure(t *testing.T) {
	c := request("example.com")
	c.Request.Method = "POST"
	c.Request.URL = &url.URL{Path: "/a b", RawQuery: "q=1"}
	c.Header = http.Header{"X-A": {"1", "22"}, "Content-Length": {"5"}}
	c.Body = []byte("hello")
	wire := "POST /a%20b?q=1 HTTP/1.1\r\nHost: example.com\r\nX-A: 1\r\nX-A: 22\r\nContent-Length: 5\r\n\r\nhello"
	if a := measure(c); int(a.bytes) != len(wire)-1 || a.requests != 1 || a.name != c.Request.Host { // but for the ?
		t.Errorf("%+v, want %d bytes", a, len(wire))
	}
	c.Kind, c.Header = inspect.KindTrailer, http.Header{"X-Sum": {"abc"}}
	c.Body = nil
	if a := measure(c); int(a.bytes) != len("X-Sum: abc\r\n") || a.requests != 0 || !a.name.IsZero() {
		t.Errorf("trailer %+v", a)
	}
	w := message("a.test", 100)
	w.Kind, w.Repeated = inspect.KindWindow, 30
	if a := measure(w); a.bytes != 70 {
		t.Errorf("window %+v", a)
	}
	for kind, want := range map[inspect.Kind]int64{inspect.KindMessage: 5, inspect.KindWebSocket: 6} {
		w := message("a.test", 0)
		w.Kind = kind
		if a := measure(w); a.bytes != want || a.requests != 0 {
			t.Errorf("an empty message: %+v", a)
		}
	}
	for _, odd := range []int{-5, 100, 1000} {
		w.Repeated = odd
		if a := measure(w); a.bytes < 0 || a.bytes > 100 {
			t.Errorf("window with %d repeated: %+v", odd, a)
		}
	}
}

// TestWindow: what left counts for the window and no longer than a slot more,
// names as well.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &State{}
		in := New(day(config.Limits{Bytes: config.Threshold{Block: 1000}, Hosts: config.Threshold{Block: 2}}), s, zone)
		for hour := range 72 {
			v := send(in, message("a.example.com", 40))
			if !v.Allowed() { // 24 or 25 of them count
				t.Fatalf("hour %d: %s", hour, v.Reason)
			}
			if hour == 30 {
				expect(t, "more", send(in, message("a.example.com", 100)), inspect.Blocked, "budget: 1060 bytes to example.com in 24h (block at 1000)")
			}
			time.Sleep(time.Hour) //nolint:forbidigo // fake time
		}
		send(in, request("a.example.com"))
		send(in, request("b.example.com"))
		if v := send(in, request("c.example.com")); v.Allowed() {
			t.Error("a third name passed")
		}
		time.Sleep(23 * time.Hour)            //nolint:forbidigo // fake time
		send(in, request("b.example.com"))    // is in use
		time.Sleep(2*time.Hour + time.Second) //nolint:forbidigo // fake time
		if v := send(in, request("c.example.com")); !v.Allowed() {
			t.Errorf("a day later: %s", v.Reason)
		}
		if v := send(in, request("d.example.com")); v.Allowed() || s.names != 2 {
			t.Errorf("%d names, %+v", s.names, v)
		}
		time.Sleep(48 * time.Hour) //nolint:forbidigo // fake time
		expect(t, "all is over", send(in, message("a.example.com", 1000)), inspect.Allowed, "")
		if s.names != 0 {
			t.Errorf("%d names are left", s.names)
		}
	})
}

// TestReload is rules.md 98: a new policy gives nothing back, whatever its
// window is.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &State{}
		limits := config.Limits{Bytes: config.Threshold{Block: 100}, Hosts: config.Threshold{Block: 1}}
		cfg := day(limits)
		if v := send(New(cfg, s, zone), message("a.example.com", 60)); !v.Allowed() {
			t.Fatal(v.Reason)
		}
		send(New(cfg, s, zone), request("a.example.com"))
		for _, w := range []time.Duration{time.Minute, 720 * time.Hour, time.Hour, 24 * time.Hour} {
			cfg.Window = w
			if v := send(New(cfg, s, zone), message("a.example.com", 60)); v.Allowed() {
				t.Errorf("window %v: %+v", w, v)
			}
			if v := send(New(cfg, s, zone), request("b.example.com")); v.Allowed() {
				t.Errorf("window %v: another name passes", w)
			}
		}
		cfg.Window = time.Minute
		send(New(cfg, s, zone), message("a.example.com", 0))
		time.Sleep(2 * time.Minute) //nolint:forbidigo // fake time
		expect(t, "the new window is over", send(New(cfg, s, zone), message("a.example.com", 60)), inspect.Allowed, "")
	})
}

// TestReserve is peer-holes E8: of requests at the same time no more pass than
// one after the other.
func TestReserve(t *testing.T) {
	s := &State{}
	cfg := day(config.Limits{Bytes: config.Threshold{Block: 1000}, Hosts: config.Threshold{Block: 7}})
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed, names := 0, 0
	for i := range 50 {
		wg.Go(func() {
			in := New(cfg, s, zone)
			bytes := send(in, message("a.example.com", 99)).Allowed()
			small := request(fmt.Sprintf("h%d.test", i))
			small.Request.Host = hostname.MustParse(fmt.Sprintf("h%d.zone.test", i))
			name := send(New(cfg, s, func(hostname.Name) hostname.Name { return hostname.MustParse("zone.test") }), small).Allowed()
			mu.Lock()
			defer mu.Unlock()
			if bytes {
				passed++
			}
			if name {
				names++
			}
		})
	}
	wg.Wait()
	if passed != 10 || names != 7 {
		t.Errorf("%d messages of 10 and %d names of 7 passed", passed, names)
	}
}

type refuser struct{}

func (refuser) Name() string { return "refuser" }

func (refuser) InspectContent(context.Context, *inspect.Content) inspect.Result {
	return inspect.Done(inspect.Finding{Reason: "no", Severity: inspect.Error})
}

// TestSettle: what another inspector blocks is given back, and what is over the
// limit and only observed is counted.
func TestSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &State{}
		in := New(day(config.Limits{Bytes: config.Threshold{Block: 1000}, Requests: config.Threshold{Block: 2}, Hosts: config.Threshold{Block: 2}}), s, zone)
		refusing := inspect.NewChain(in).WithContent(in, refuser{})
		for i := range 9 {
			c := request(fmt.Sprintf("h%d.example.com", i))
			c.Body = make([]byte, 900)
			refusing.DecideContent(context.Background(), c)
		}
		if s.names != 0 || s.cage.sum != (counts{}) || len(s.Totals()) != 0 {
			t.Errorf("%d names, %+v", s.names, s.cage.sum)
		}
		observing := chain(in).WithAdjust(func(_ *inspect.Request, f inspect.Finding) inspect.Finding { f.Mode = inspect.Observed; return f })
		for i := range 3 {
			c := request(fmt.Sprintf("h%d.example.com", i))
			c.Body = make([]byte, 900)
			if v := observing.DecideContent(context.Background(), c); !v.Allowed() || len(v.Findings) != []int{0, 1, 3}[i] {
				t.Errorf("%d: %+v", i, v)
			}
		}
		if v := send(in, request("h2.example.com")); v.Allowed() || !strings.Contains(v.Reason, "bytes to example.com") {
			t.Errorf("%+v", v)
		}
		if got := s.Totals(); len(got) != 1 || got[0].Requests != 3 || got[0].Bytes < 2700 || got[0].Host.String() != "example.com" {
			t.Errorf("%+v", got)
		}
	})
}

// TestEvictionGivesNothing is rules.md 114: the tables are capped, and pushing
// a destination out does not give it its budget back.
func TestEvictionGivesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &State{}
		in := New(day(config.Limits{Bytes: config.Threshold{Block: 100}, Hosts: config.Threshold{Flag: 1 << 30}}), s, nil)
		expect(t, "the first", send(in, message("target.test", 90)), inspect.Allowed, "")
		passed := 0
		for i := range maxAccounts + 500 {
			if send(in, message(fmt.Sprintf("h%d.test", i), 10)).Allowed() {
				passed++
			}
		}
		if passed != maxAccounts-1+10 {
			t.Errorf("%d passed: those with an account, and ten that share one", passed)
		}
		if v := send(in, message("new.test", 10)); v.Reason != "budget: 110 bytes to other hosts in 24h (block at 100)" {
			t.Errorf("%+v", v)
		}
		if v := send(in, message("target.test", 20)); v.Allowed() {
			t.Error("the first has its budget back")
		}
		time.Sleep(26 * time.Hour) //nolint:forbidigo // fake time
		expect(t, "a day later", send(in, message("new.test", 100)), inspect.Allowed, "")
		if len(s.accounts) != maxAccounts || s.recent.Len() != maxAccounts {
			t.Errorf("%d accounts", len(s.accounts))
		}
	})
}

func TestNamesAreCapped(t *testing.T) {
	s := &State{names: maxNames}
	in := New(day(config.Limits{Hosts: config.Threshold{Flag: 1 << 30}}), s, nil)
	if v := send(in, request("a.test")); v.Allowed() {
		t.Errorf("%+v", v)
	}
}

func TestPerHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := day(config.Limits{Bytes: config.Threshold{Block: 100}})
		cfg.PerHost = map[hostname.Name]config.Limits{
			hostname.MustParse("api.example.com"): {Bytes: config.Threshold{Block: 1000}},
			hostname.MustParse("com"):             {Bytes: config.Threshold{Block: 50}},
		}
		in := New(cfg, &State{}, zone)
		expect(t, "its own", send(in, message("v1.api.example.com", 1000)), inspect.Allowed, "")
		expect(t, "is one destination", send(in, message("api.example.com", 1)), inspect.Blocked, "budget: 1001 bytes to api.example.com in 24h (block at 1000)")
		expect(t, "the rest of the entry", send(in, message("www.example.com", 51)), inspect.Blocked, "budget: 51 bytes to example.com in 24h (block at 50)")
		expect(t, "others", send(in, message("other.test", 100)), inspect.Allowed, "")
	})
}

// TestTunnels: of what is passed on unread there is only the head.
func TestTunnels(t *testing.T) {
	in := New(day(config.Limits{Requests: config.Threshold{Flag: 1, Block: 2}, Hosts: config.Threshold{Block: 1}}), &State{}, zone)
	ask := func(host string, again, opaque bool) inspect.Verdict {
		return chain(in).Decide(context.Background(), &inspect.Request{Host: hostname.MustParse(host), Opaque: opaque, Again: again})
	}
	expect(t, "first", ask("a.example.com", false, true), inspect.Allowed, "")
	expect(t, "another name", ask("b.example.com", false, true), inspect.Blocked, "budget: 2 host names under example.com in 24h (block at 1)")
	expect(t, "second", ask("a.example.com", false, true), inspect.Flagged, "budget: 2 requests to example.com in 24h (flag at 1)")
	expect(t, "third", ask("a.example.com", false, true), inspect.Blocked, "budget: 3 requests to example.com in 24h (block at 2)")
	expect(t, "decided again", ask("a.example.com", true, true), inspect.Allowed, "")
	expect(t, "what has content", ask("a.example.com", false, false), inspect.Allowed, "")
}

func TestMissingStateBlocks(t *testing.T) {
	for _, in := range []*Inspector{{}, New(day(config.Limits{}), nil, nil)} {
		if v := send(in, message("a.test", 1)); v.Allowed() {
			t.Errorf("content passes: %+v", v)
		}
		if v := chain(in).Decide(context.Background(), &inspect.Request{Host: hostname.MustParse("a.test")}); v.Allowed() {
			t.Errorf("a head passes: %+v", v)
		}
	}
	if v := send(New(day(config.Limits{}), &State{}, nil), message("a.test", 1)); v.Decision != inspect.Allowed {
		t.Errorf("positive control: %+v", v)
	}
	c := message("a.test", 1000)
	c.Direction = inspect.ToClient
	if v := send(New(day(config.Limits{Bytes: config.Threshold{Block: 1}}), &State{}, nil), c); v.Decision != inspect.Allowed {
		t.Errorf("what comes back is counted: %+v", v)
	}
}

// TestStatus: a client that is told to try again later should be able to.
func TestStatus(t *testing.T) {
	for w, want := range map[time.Duration]int{time.Minute: 429, 5 * time.Minute: 429, time.Hour: 403} {
		cfg := day(config.Limits{Bytes: config.Threshold{Block: 1}})
		cfg.Window = w
		if v := send(New(cfg, &State{}, nil), message("a.test", 2)); v.Status != want {
			t.Errorf("%v: %d", w, v.Status)
		}
	}
}

func TestWindowText(t *testing.T) {
	for d, want := range map[time.Duration]string{24 * time.Hour: "24h", 90 * time.Minute: "1h30m", time.Minute: "1m", 90 * time.Second: "1m30s", 720 * time.Hour: "720h"} {
		if got := window(d); got != want {
			t.Errorf("%v: %s", d, got)
		}
	}
}

func TestTotals(t *testing.T) {
	s := &State{}
	in := New(day(config.Limits{}), s, zone)
	send(in, message("a.example.com", 10))
	send(in, message("b.example.com", 10))
	send(in, message("big.test", 1000))
	got := fmt.Sprint(s.Totals())
	if want := "[{big.test 1000 0} {example.com 20 0}]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestReadme sends the examples of README.md.
func TestReadme(t *testing.T) {
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, examples, _ := strings.Cut(string(data), "## Examples")
	yaml := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(examples)
	if yaml == nil {
		t.Fatal("no config")
	}
	cfg, err := config.Parse("cage.yaml", []byte("name: x\n"+yaml[1]))
	if err != nil {
		t.Fatal(err)
	}
	in := New(cfg.Budget, &State{}, zone)
	rows := regexp.MustCompile("(?m)^\\| (\\d+) bytes to `(.*)` \\| (.*) \\|$").FindAllStringSubmatch(examples, -1)
	if len(rows) < 5 {
		t.Fatalf("%d examples", len(rows))
	}
	for _, row := range rows {
		var n int
		fmt.Sscan(row[1], &n)
		c := request(row[2])
		c.Body = make([]byte, n-int(measure(c).bytes))
		v := send(in, c)
		got := v.Decision.String()
		if v.Reason != "" {
			got += ": " + v.Reason
		}
		if got != row[3] {
			t.Errorf("%s: %s, want %s", row[0], got, row[3])
		}
	}
}

func BenchmarkInspectContent(b *testing.B) {
	cfg := config.Default().Budget
	cfg.Each.Bytes.Flag = 1 << 50
	cfg.Each.Requests.Flag = 1 << 50
	in := chain(New(cfg, &State{}, zone))
	c := request("api.example.com")
	b.ReportAllocs()
	for b.Loop() {
		if v := in.DecideContent(context.Background(), c); v.Decision != inspect.Allowed {
			b.Fatal(v)
		}
	}
}
