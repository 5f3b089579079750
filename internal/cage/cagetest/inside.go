//go:build linux

package cagetest

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/cage/cagetest/wire"
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/gateway"
)

// setup is what a check may change of a cage before it starts.
type setup struct {
	allow  []string // entries of domains.allow
	lines  []string // further lines of the config
	hosts  map[string]string
	opened []string // names that may be private
	spec   cage.Spec
	attach func(cage.Listeners) error // instead of the gateway's
	ctx    context.Context            // of the start, when it is to be cancelled
	noCA   bool                       // the gateway does not trust the suite's servers
}

type option func(*setup)

// allow lists hosts, on the port of the suite's servers.
func allow(hosts ...string) option {
	return func(s *setup) { s.allow = append(s.allow, hosts...) }
}

// nothing allows no host at all.
func nothing() option { return func(s *setup) { s.allow = nil } }

func withSpec(f func(*cage.Spec)) option { return func(s *setup) { f(&s.spec) } }

func command(args ...string) option {
	return func(s *setup) { s.spec.Command = append([]string{s.spec.Command[0]}, args...) }
}

// inside is a started cage.
type inside struct {
	t       *testing.T
	p       cage.Process
	records *records
	dir     string // the working directory
	gw      *gateway.Gateway

	in  *os.File
	out *bufio.Reader
	mu  *sync.Mutex
}

// with is the same cage for a part of the test.
func (i *inside) with(t *testing.T) *inside {
	part := *i
	part.t = t
	return &part
}

// cage starts a cage with the probe as its agent, waiting for orders. It is
// ended with the test.
func (s *suite) cage(t *testing.T, options ...option) *inside {
	t.Helper()
	s.world.reset()
	in, err := s.start(t, options...)
	if err != nil {
		t.Fatalf("cannot start a cage: %v", err)
	}
	return in
}

// start is cage for checks that expect an error.
func (s *suite) start(t *testing.T, options ...option) (*inside, error) {
	t.Helper()
	dir := t.TempDir()
	set := &setup{
		allow: []string{goodHost},
		spec: cage.Spec{
			Name: "conformance", Command: []string{s.probe, "serve"}, Dir: dir, ReadOnly: []string{s.probe},
		},
		hosts:  map[string]string{goodHost: addresses[goodHost], evilHost: addresses[evilHost], innerHost: addresses[innerHost], sixHost: `"::1"`},
		opened: []string{goodHost, evilHost, sixHost},
	}
	for _, o := range options {
		o(set)
	}
	cfg, err := config.Parse("cage.yaml", []byte(s.config(set)))
	must(t, err)
	i := &inside{t: t, records: newRecords(), dir: set.spec.Dir, mu: &sync.Mutex{}}
	i.gw, err = gateway.New(gateway.Options{Config: cfg, Audit: i.records, Name: set.spec.Name, HostNetwork: true})
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // what is still under way is cut
		_ = i.gw.Shutdown(ctx)
	})
	return i, i.run(s.newBackend(t), set)
}

func (i *inside) run(b cage.Backend, set *setup) error {
	t := i.t
	set.spec.CA, set.spec.Ports = i.gw.CACertificate(), i.gw.Ports()
	inR, inW, err := os.Pipe()
	must(t, err)
	outR, outW, err := os.Pipe()
	must(t, err)
	if set.spec.Stdin == nil {
		set.spec.Stdin = inR
	}
	if set.spec.Stdout == nil {
		set.spec.Stdout = outW
	}
	if set.spec.Stderr == nil {
		set.spec.Stderr = os.Stderr
	}
	i.in, i.out = inW, bufio.NewReader(outR)
	attach := i.gw.Attach
	if set.attach != nil {
		attach = set.attach
	}
	t.Cleanup(func() { inW.Close(); outR.Close() })
	ctx := set.ctx
	if ctx == nil {
		ctx = context.Background()
	}
	i.p, err = b.Start(ctx, set.spec, attach)
	inR.Close()
	outW.Close()
	if err != nil {
		return err
	}
	t.Cleanup(func() {
		_ = i.p.Kill() // it may have ended
		_, _ = i.p.Wait()
	})
	return nil
}

// config is a cage.yaml for the suite's servers.
func (s *suite) config(set *setup) string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: conformance\nlogging: {allowed_requests: true, dns_queries: true}\nrate_limit: {requests_per_second: 0}\n")
	if len(set.allow) > 0 {
		fmt.Fprintf(&b, "domains:\n  allow:\n")
		for _, a := range set.allow {
			if strings.HasPrefix(a, "{") {
				fmt.Fprintf(&b, "    - %s\n", a)
				continue
			}
			fmt.Fprintf(&b, "    - {host: %q, ports: [%d]}\n", a, s.world.port)
		}
	}
	fmt.Fprintf(&b, "upstream:\n  dns_servers: [%q]\n  allow_private: [%s]\n", s.world.resolver.addr, strings.Join(set.opened, ", "))
	if !set.noCA {
		fmt.Fprintf(&b, "  ca_files: [%q]\n", s.world.caFile)
	}
	b.WriteString("  hosts:\n")
	for name, addr := range set.hosts {
		fmt.Fprintf(&b, "    %s: %s\n", name, addr)
	}
	for _, l := range set.lines {
		b.WriteString(l + "\n")
	}
	return b.String()
}

// ask lets the probe do something.
func (i *inside) ask(a wire.Ask) wire.Reply {
	i.t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, err := i.in.Write(append(toJSON(i.t, a), '\n')); err != nil {
		i.t.Fatalf("cannot ask the probe for %q: %v", a.Do, err)
	}
	line, err := i.out.ReadBytes('\n')
	if err != nil {
		i.t.Fatalf("the probe died of %q: %v", a.Do, err)
	}
	var r wire.Reply
	must(i.t, json.Unmarshal(line, &r))
	return r
}

// works asks for something that must succeed.
func (i *inside) works(a wire.Ask) wire.Reply {
	i.t.Helper()
	r := i.ask(a)
	if !r.OK() {
		i.t.Fatalf("%s should work in the cage: %s", a.Do, r.Err)
	}
	return r
}

// refused asks for something that the kernel must refuse, with one of the
// error numbers when any are given.
func (i *inside) refused(a wire.Ask, errnos ...string) wire.Reply {
	i.t.Helper()
	r := i.ask(a)
	if r.OK() {
		i.t.Errorf("%s %s%s %v worked in the cage (%q %d)", a.Do, a.Path, a.Addr, a.Nums, r.Data, r.Num)
		return r
	}
	for _, e := range errnos {
		if r.Errno == e {
			return r
		}
	}
	if len(errnos) > 0 {
		i.t.Errorf("%s %s%s %v failed with %q (%s), want %s", a.Do, a.Path, a.Addr, a.Nums, r.Errno, r.Err, strings.Join(errnos, " or "))
	}
	return r
}

// lines reads what the command prints, for commands other than serve.
func (i *inside) line() string {
	i.t.Helper()
	s, err := i.out.ReadString('\n')
	must(i.t, err)
	return strings.TrimSpace(s)
}

// refusal is the gateway's answer to a blocked request.
type refusal struct {
	Blocked bool   `json:"blocked"`
	Reason  string `json:"reason"`
	Host    string `json:"host"`
	By      string `json:"by"`
	ID      string `json:"id"`
}

// blocked checks that a reply is a refusal which a program and a person
// understand, and that the very same refusal is in the audit log.
func (i *inside) blocked(r wire.Reply, reason string) {
	i.t.Helper()
	if !r.OK() {
		i.t.Errorf("want a 403 that says why, got an error: %s", r.Err)
		return
	}
	var f refusal
	if err := json.Unmarshal(r.Data, &f); err != nil || r.Status != 403 {
		i.t.Errorf("want a 403 as JSON, got %d %q", r.Status, clip(r.Text()))
		return
	}
	if !f.Blocked || f.By != "agentcage" || f.ID == "" || !strings.Contains(f.Reason, reason) {
		i.t.Errorf("the refusal says %+v, want a reason with %q", f, reason)
		return
	}
	i.records.await(i.t, "refusal "+f.ID, func(r audit.Record) bool { return r.ID == f.ID && r.Decision == "blocked" })
}

// arrived checks that a request was answered by a server, and returns what the
// server says it received.
func (i *inside) arrived(r wire.Reply, server string) received {
	i.t.Helper()
	var got received
	if !r.OK() || r.Status != 200 {
		i.t.Fatalf("want an answer from %s, got %d %q %s", server, r.Status, clip(r.Text()), r.Err)
	}
	if err := json.Unmarshal(r.Data, &got); err != nil || got.Server != server {
		i.t.Fatalf("want an answer from %s, got %q", server, clip(r.Text()))
	}
	return got
}

func clip(s string) string { return s[:min(len(s), 300)] }

func certPool(pem []byte) *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(pem)
	return p
}

// records is an audit sink that can be waited on.
type records struct {
	mu   sync.Mutex
	all  []audit.Record
	news chan struct{}
}

func newRecords() *records { return &records{news: make(chan struct{})} }

// Put implements audit.Sink.
func (r *records) Put(rec audit.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, rec)
	close(r.news)
	r.news = make(chan struct{})
	return nil
}

// await waits for a record.
func (r *records) await(t testing.TB, what string, match func(audit.Record) bool) audit.Record {
	t.Helper()
	ctx := deadline(t)
	for {
		r.mu.Lock()
		all, news := r.all, r.news
		r.mu.Unlock()
		for _, rec := range all {
			if match(rec) {
				return rec
			}
		}
		select {
		case <-news:
		case <-ctx.Done():
			t.Fatalf("the audit has no record of %s; it has %s", what, clip(fmt.Sprintf("%+v", all)))
		}
	}
}

func (r *records) snapshot() []audit.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]audit.Record(nil), r.all...)
}
