// Package demo plays an attack on a cage, offline: an honest API, an attacker
// who listens everywhere, and an agent that works with the one and tries to
// reach the other.
package demo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/proxy/ca"
)

// Loot is what the agent tries to carry away. The attacker must never see it,
// whole or encoded.
const Loot = "demo-loot-7f3a91c2"

// The names on the stage. RFC 2606 and RFC 6761 keep them from being anybody's.
const (
	apiHost  = "api.demo.test"
	evilHost = "evil.demo.test"
)

// Step is one thing that the agent tried.
type Step struct {
	Name    string `json:"name"`
	Title   string `json:"title"`
	Honest  bool   `json:"honest"`  // it should succeed
	Worked  bool   `json:"worked"`  // as the agent saw it
	Outcome string `json:"outcome"` // in the words of the kernel or the gateway
	Layer   string `json:"layer"`   // what stops it
	OK      bool   `json:"ok"`      // it went as it should, seen from outside
}

// Stage is everything outside of the cage. Close it.
type Stage struct {
	Dir     string // of the demo's own, removed at the end
	Project string // the agent's working directory

	home     string
	oldHome  string
	api      *http.Server
	apiPort  int
	evil     *attacker
	records  *recorder
	serving  sync.WaitGroup
	received received
}

// received collects what the API got, to see that honest work arrived.
type received struct {
	mu     sync.Mutex
	bodies []string
}

// NewStage builds the stage: servers on loopback, a home directory with a key
// in it, and a project that is a git repository.
func NewStage() (*Stage, error) {
	dir, err := os.MkdirTemp("", "agentcage-demo-")
	if err != nil {
		return nil, fmt.Errorf("cannot make the demo's directory: %w", err)
	}
	s := &Stage{Dir: dir, Project: filepath.Join(dir, "project"), home: filepath.Join(dir, "home"), oldHome: os.Getenv("HOME"), records: &recorder{}}
	if err := errors.Join(s.makeFiles(), s.startAPI(), s.startAttacker()); err != nil {
		s.Close()
		return nil, err
	}
	// The cage hides the home directory that $HOME names. The demo has one
	// of its own, with a key worth stealing in it.
	return s, os.Setenv("HOME", s.home)
}

func (s *Stage) makeFiles() error {
	for _, d := range []string{filepath.Join(s.Project, ".git", "hooks"), filepath.Join(s.home, ".ssh")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	return errors.Join(
		os.WriteFile(filepath.Join(s.home, ".ssh", "id_ed25519"), []byte(Loot), 0o600),
		os.WriteFile(filepath.Join(s.Project, ".git", "config"), []byte("[core]\n\tbare = false\n"), 0o600),
		os.WriteFile(filepath.Join(s.Project, ".git", "HEAD"), []byte("ref: refs/heads/main\n"), 0o600),
		os.WriteFile(filepath.Join(s.Project, "notes.txt"), []byte("the project's own file\n"), 0o600),
	)
}

func (s *Stage) startAPI() error {
	authority, err := ca.New("demo API")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.caFile(), authority.PEM(), 0o600); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("cannot start the demo's API: %w", err)
	}
	s.apiPort = l.Addr().(*net.TCPAddr).Port
	s.api = &http.Server{
		Handler: http.HandlerFunc(s.serveAPI),
		TLSConfig: &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			name, err := hostname.Parse(h.ServerName)
			if err != nil {
				return nil, err
			}
			return authority.Certificate(name)
		}},
	}
	s.serving.Go(func() { _ = s.api.ServeTLS(l, "", "") }) // ends with Close
	return nil
}

func (s *Stage) serveAPI(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.received.mu.Lock()
	s.received.bodies = append(s.received.bodies, r.Host+" "+string(body))
	s.received.mu.Unlock()
	fmt.Fprintf(w, `{"model":"demo","reply":"hello from the API","host":%q}`, r.Host)
}

func (s *Stage) startAttacker() (err error) {
	s.evil, err = newAttacker()
	return err
}

func (s *Stage) caFile() string { return filepath.Join(s.Dir, "api-ca.pem") }

// Config is the cage's config: the API and nothing else.
func (s *Stage) Config() []byte {
	return fmt.Appendf(nil, `name: demo
domains:
  allow:
    - host: =%s
      ports: [%d]
upstream:
  ca_files: [%q]
  allow_private: [%s]
  hosts:
    %s: 127.0.0.1
    %s: 127.0.0.1
rate_limit:
  requests_per_second: 0
`, apiHost, s.apiPort, s.caFile(), apiHost, apiHost, evilHost)
}

// Env tells the agent where the servers are: a real attacker knows, too.
func (s *Stage) Env() []string {
	return []string{
		fmt.Sprintf("DEMO_API=https://%s:%d", apiHost, s.apiPort),
		fmt.Sprintf("DEMO_EVIL_PORT=%d", s.evil.port),
		"DEMO_HOME=" + s.home,
	}
}

// Audit records what the gateway decided.
func (s *Stage) Audit() audit.Sink { return s.records }

// Control shows that the attacker can be reached without a cage: a server that
// nobody can reach would receive nothing either.
func (s *Stage) Control(ctx context.Context) error {
	for _, network := range []string{"tcp", "udp"} {
		var d net.Dialer
		c, err := d.DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", s.evil.port))
		if err != nil {
			return fmt.Errorf("the attacker's server is not reachable: %w", err)
		}
		_, err = io.WriteString(c, "control\n")
		if err = errors.Join(err, s.evil.await(ctx, network), c.Close()); err != nil {
			return fmt.Errorf("the attacker's server hears nothing: %w", err)
		}
	}
	s.evil.reset()
	if _, err := os.Stat(filepath.Join(s.home, ".ssh", "id_ed25519")); err != nil {
		return fmt.Errorf("there is no key to steal: %w", err)
	}
	return nil
}

// Stolen returns what the attacker received from the cage.
func (s *Stage) Stolen() string { return s.evil.heard() }

// Judge adds the view from outside to what the agent reported.
func (s *Stage) Judge(steps []Step) []Step {
	seen := map[string]bool{}
	for i := range steps {
		steps[i].OK = steps[i].Worked == steps[i].Honest
		seen[steps[i].Name] = true
	}
	for _, a := range script {
		if !seen[a.name] { // an agent that died tells nothing, and that is no success
			steps = append(steps, Step{Name: a.name, Title: a.title, Outcome: "the agent did not report", Layer: a.layer})
		}
	}
	return append(steps, s.fromOutside()...)
}

// fromOutside are the facts that do not depend on the agent's word.
func (s *Stage) fromOutside() []Step {
	s.received.mu.Lock()
	arrived := strings.Join(s.received.bodies, "\n")
	s.received.mu.Unlock()
	hook := filepath.Join(s.Project, ".git", "hooks", "pre-commit")
	_, planted := os.Lstat(hook)
	blocked := s.records.blocked()
	return []Step{
		fact("api-received", "(outside) the API received the honest request", strings.Contains(arrived, "honest work"), "and none with another Host", !strings.Contains(arrived, evilHost)),
		fact("hook-absent", "(outside) no hook lies in the project", planted != nil, "the file is not there", true),
		fact("audit", "(outside) the audit log names the refusals", blocked >= 5, fmt.Sprintf("%d refusals recorded", blocked), true),
	}
}

func fact(name, title string, holds bool, outcome string, also bool) Step {
	ok := holds && also
	return Step{Name: name, Title: title, Honest: true, Worked: ok, Outcome: outcome, Layer: "-", OK: ok}
}

// Close ends the servers and removes every file.
func (s *Stage) Close() error {
	var errs []error
	if s.api != nil {
		errs = append(errs, s.api.Close())
	}
	if s.evil != nil {
		errs = append(errs, s.evil.close())
	}
	s.serving.Wait()
	return errors.Join(append(errs, os.Setenv("HOME", s.oldHome), os.RemoveAll(s.Dir))...)
}

// Collect reads the agent's reports until it has ended.
func Collect(r io.Reader) <-chan []Step {
	out := make(chan []Step, 1)
	go func() {
		var steps []Step
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			var s Step
			if json.Unmarshal(bytes.TrimSpace(lines.Bytes()), &s) == nil && s.Name != "" {
				steps = append(steps, s)
			}
		}
		out <- steps
	}()
	return out
}

// recorder counts what the gateway refused.
type recorder struct {
	mu      sync.Mutex
	refused int
}

// Put implements audit.Sink.
func (r *recorder) Put(rec audit.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec.Decision == inspectBlocked {
		r.refused++
	}
	return nil
}

const inspectBlocked = "blocked"

func (r *recorder) blocked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused
}
