package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The metrics, as they stand in the JSON. Rates are a second, delays and
// times in milliseconds, memory in MB of a million bytes.
const (
	getRate    = "get_per_second"
	getLate    = "get_p99_ms"
	h2Rate     = "h2_get_per_second"
	postRate   = "post_10kB_per_second"
	freshRate  = "fresh_per_second"
	bytesRate  = "download_MB_per_second"
	eventDelay = "event_median_ms"
	eventLate  = "event_p99_ms"
	firstDelay = "first_event_median_ms"
	idleMem    = "rss_idle_MB"
	largeMem   = "rss_large_download_MB"
	socketMem  = "rss_sockets_MB"
	startTime  = "run_true_ms"
)

// measureMemory gives every contender a fresh process for each figure, so
// that what one load left on the heap is not counted for the next.
func measureMemory(ctx context.Context, l *lab, list []contender, s settings, res *result) error {
	for _, c := range list {
		if c.start == nil {
			continue
		}
		progress("memory of %s", c.name)
		if err := memoryOfDownload(ctx, l, c, s, res); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if err := memoryOfSockets(ctx, l, c, s, res); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func memoryOfDownload(ctx context.Context, l *lab, c contender, s settings, res *result) error {
	p, err := c.start(ctx)
	if err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	defer p.stop()
	cl := client{proxy: p.addr, lab: l}
	// One request first: what is made at the first use belongs to idle.
	if _, err := cl.download(1); err != nil {
		return err
	}
	res.add(c.name, idleMem, resident(p.cmd.Process.Pid))
	size := s.Large
	if c.name == mitmproxy {
		size = s.Download / 10 // it keeps the whole body in memory, at a few MB/s
	}
	highest := watch(p.cmd.Process.Pid, func() { _, err = cl.download(size) })
	if err != nil {
		return fmt.Errorf("large download: %w", err)
	}
	if c.name != mitmproxy {
		res.add(c.name, largeMem, highest)
	}
	return nil
}

func memoryOfSockets(ctx context.Context, l *lab, c contender, s settings, res *result) error {
	p, err := c.start(ctx)
	if err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	defer p.stop()
	closeAll, err := client{proxy: p.addr, lab: l}.sockets(s.Sockets)
	defer closeAll()
	if err != nil {
		// squid relays upgrades only when told so, and some may not at all.
		progress("%s: WebSockets: %v", c.name, err)
		return nil
	}
	res.add(c.name, socketMem, resident(p.cmd.Process.Pid))
	return nil
}

// watch samples the memory of pid while f runs and returns the highest.
func watch(pid int, f func()) float64 {
	stop, highest := make(chan struct{}), make(chan float64)
	go func() {
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		top := 0.0
		for {
			top = max(top, resident(pid))
			select {
			case <-ticker.C:
			case <-stop:
				highest <- top
				return
			}
		}
	}()
	f()
	close(stop)
	return <-highest
}

// resident is the VmRSS (proc_pid_status(5)) of pid and all its descendants.
func resident(pid int) float64 {
	sum := 0.0
	for _, p := range append(descendants(pid), pid) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
				sum += kib * 1024 / 1e6
			}
		}
	}
	return sum
}

func descendants(pid int) []int {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var all []int
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for word := range strings.FieldsSeq(string(b)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(append(all, child), descendants(child)...)
			}
		}
	}
	return all
}

// measureTraffic runs all contenders at once, idle but for the one whose turn
// it is, scenario by scenario, so that a slow second of the machine hits them
// alike.
func measureTraffic(ctx context.Context, l *lab, list []contender, s settings, res *result) error {
	clients := make([]client, len(list))
	for i, c := range list {
		clients[i] = client{lab: l}
		if c.start == nil {
			continue
		}
		p, err := c.start(ctx)
		if err != nil {
			return fmt.Errorf("cannot start %s: %w", c.name, err)
		}
		defer p.stop()
		clients[i].proxy = p.addr
	}
	for round := range s.Rounds {
		progress("round %d of %d", round+1, s.Rounds)
		for _, sc := range scenarios {
			for i := range list {
				// Every round begins with another one: who comes first
				// finds the machine in another state than who comes last.
				at := (i + round) % len(list)
				c := list[at]
				if c.slow && round >= 2 {
					continue
				}
				if err := sc(clients[at], c, s, res); err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
			}
		}
	}
	return nil
}

// scenarios are run in this order in every round.
var scenarios = []func(client, contender, settings, *result) error{
	func(cl client, c contender, s settings, res *result) error {
		t, err := cl.kept(16, s.Slice, cl.get("/small", ""), http.MethodGet)
		res.add(c.name, getRate, t.rate)
		res.add(c.name, getLate, percentile(t.late, 0.99))
		return wrap("small GETs", err)
	},
	func(cl client, c contender, s settings, res *result) error {
		body := []byte(`{"text":"` + strings.Repeat("words and more words, ", 454) + `"}`)
		t, err := cl.kept(16, s.Slice, cl.post("/sink", body), http.MethodPost)
		res.add(c.name, postRate, t.rate)
		return wrap("POST of 10 kB", err)
	},
	large,
	func(cl client, c contender, s settings, res *result) error {
		t, err := cl.fresh(8, s.Slice)
		res.add(c.name, freshRate, t.rate)
		return wrap("new connections", err)
	},
	func(cl client, c contender, s settings, res *result) error {
		t, ok, err := cl.http2(16, s.Slice)
		if ok {
			res.add(c.name, h2Rate, t.rate)
		}
		return wrap("HTTP/2", err)
	},
	func(cl client, c contender, s settings, res *result) error {
		size := s.Download
		if c.name == mitmproxy {
			size /= 10
		}
		rate, err := cl.download(size)
		res.add(c.name, bytesRate, rate)
		return wrap("download", err)
	},
	func(cl client, c contender, _ settings, res *result) error {
		if c.name == mitmproxy {
			return nil // it passes a stream on when it has ended
		}
		var all, first []float64
		for range 5 {
			late, err := cl.events(12)
			if err != nil {
				return wrap("events", err)
			}
			all, first = append(all, late...), append(first, late[0])
		}
		res.add(c.name, firstDelay, median(first))
		res.add(c.name, eventDelay, median(all))
		res.add(c.name, eventLate, percentile(all, 0.99))
		return nil
	},
}

func wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// measureStart times a caged `true` from start to end, beside bubblewrap and
// beside no cage. What cannot run here is left out, with a word.
func measureStart(ctx context.Context, dir, binary string, s settings, res *result) {
	work := filepath.Join(dir, "work")
	if err := os.MkdirAll(work, 0o755); err != nil {
		progress("cages are not timed: %v", err)
		return
	}
	commands := map[string][]string{
		direct:       {"true"},
		"bubblewrap": {"bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all", "true"},
		ours:         {binary, "run", "-q", "--", "true"},
	}
	names := []string{direct, "bubblewrap", ours}
	for _, name := range slices.Clone(names) {
		if _, out, err := timed(ctx, work, commands[name]); err != nil {
			progress("start of %s is left out: %v: %s", name, err, bytes.TrimSpace(out))
			names = slices.DeleteFunc(names, func(n string) bool { return n == name })
		}
	}
	progress("%d starts of %s", s.Starts, strings.Join(names, ", "))
	for range s.Starts {
		for _, name := range names {
			if ms, _, err := timed(ctx, work, commands[name]); err == nil {
				res.add(name, startTime, ms)
			}
		}
	}
}

func timed(ctx context.Context, dir string, args []string) (ms float64, output []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	begin := time.Now()
	output, err = cmd.CombinedOutput()
	return float64(time.Since(begin).Microseconds()) / 1000, output, err
}
