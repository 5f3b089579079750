package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/proxy"
	"github.com/agentcage/agentcage/internal/proxy/ca"
)

// trialTime is how long a trial may take beside the time that the rate limit
// may hold it.
const trialTime = 30 * time.Second

// Trial is a request of which a policy is to say what would become of it.
type Trial struct {
	Method   string
	URL      string   // http, https, ws or wss
	Header   []string // "Name: value", sent as they are
	Body     []byte
	Messages []string // text that is sent over the WebSocket that the request opens
}

// Outcome is what became of a Trial.
type Outcome struct {
	Decision inspect.Decision
	Reason   string
	Unread   bool // the TLS was passed through, and nothing in it was looked at
	// Steps are what each inspector said, in the order in which they were
	// asked; Allowed where it had nothing to object to. What the engine
	// refuses itself has none.
	Steps []inspect.Finding
}

// Check builds the policy of a config, as New does, and returns its error.
func Check(c *config.Config) error {
	if err := checkTransforms(c); err != nil {
		return err
	}
	_, err := newPolicy(c, new(state), nil)
	return err
}

// Try sends a request through an engine like that of a Gateway, on the same way
// as an agent's: CONNECT and TLS for https, and absolute form for http. Nothing
// is looked up and nothing leaves this process, as the server is one of our own
// that takes everything. So what Try says is what the gateway does, with every
// bucket of the rate limit full. Of the options it needs those that New's policy
// is made of. An error says that nothing can be told.
func Try(ctx context.Context, o Options, t Trial) (Outcome, error) {
	way, err := newWay(t)
	if err != nil {
		return Outcome{}, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c, st := o.Config, new(state)
	if err := st.hold(c, o.Getenv); err != nil {
		return Outcome{}, err
	}
	custom, err := o.newCustom(c)
	if err != nil {
		return Outcome{}, err
	}
	defer custom.Close()
	secrets, err := newSecrets(c, o, &st.values, &http.Client{Transport: nobody{}})
	if err != nil {
		return Outcome{}, err
	}
	p, err := newPolicy(c, st, secrets.get(), custom.list()...)
	if err != nil {
		return Outcome{}, err
	}
	var n notes
	p.chain = p.chain.WithTrace(n.step)
	ctx, cancel := context.WithTimeout(ctx, trialTime+c.RateLimit.Wait)
	defer cancel()
	err = way.send(ctx, p, &n)
	if err == nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return Outcome{}, fmt.Errorf("cannot try %s: %w", t.URL, err)
	}
	return n.outcome()
}

// notes are what the engine and the chain say during a trial.
type notes struct {
	mu      sync.Mutex
	steps   []inspect.Finding
	records []audit.Record
}

func (n *notes) step(f inspect.Finding) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.steps = append(n.steps, f)
}

// Put implements audit.Sink.
func (n *notes) Put(r audit.Record) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.records = append(n.records, r)
	return nil
}

// outcome is the strictest decision that was recorded, and the last of those.
func (n *notes) outcome() (Outcome, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	o := Outcome{Decision: inspect.Allowed, Steps: n.steps}
	if len(n.records) == 0 {
		return Outcome{}, errors.New("cannot tell: the gateway recorded nothing")
	}
	for _, r := range n.records {
		is := decisionOf(r.Decision)
		if r.Kind == audit.KindTunnel && is == inspect.Allowed {
			o.Unread = true
		}
		if r.Kind == audit.KindUpstream {
			return Outcome{}, fmt.Errorf("cannot tell: %s", r.Reason)
		}
		if is <= o.Decision {
			o.Decision, o.Reason = is, r.Reason
		}
	}
	return o, nil
}

func decisionOf(word string) inspect.Decision {
	for _, d := range []inspect.Decision{inspect.Allowed, inspect.Flagged} {
		if d.String() == word {
			return d
		}
	}
	return inspect.Blocked
}

// way is a trial in the form in which it is sent.
type way struct {
	trial     Trial
	tls       bool
	authority string // as in the URL
	host      hostname.Name
	port      uint16
	target    string // path and query as in the URL
}

func newWay(t Trial) (*way, error) {
	bad := func(why string) (*way, error) { return nil, fmt.Errorf("cannot use the URL %q: %s", t.URL, why) }
	u, err := url.Parse(t.URL)
	if err != nil {
		return bad("it is no URL")
	}
	w := &way{trial: t, authority: u.Host}
	switch u.Scheme {
	case "https", "wss":
		w.tls, w.port = true, 443
	case "http", "ws":
		w.port = 80
	default:
		return bad("it begins with neither https:// nor http://")
	}
	if u.User != nil {
		return bad("it has a user; write a header Authorization")
	}
	host, port, err := hostname.ParseAuthority(u.Host)
	if err != nil {
		return nil, err
	}
	w.host = host
	if port != 0 {
		w.port = port
	}
	w.target = targetOf(t.URL, u)
	return w, nil
}

// targetOf is path and query as they stand in the URL, so that it can be tried
// what a client would send that does not tidy up; or else as net/url writes them.
func targetOf(raw string, u *url.URL) string {
	_, rest, _ := strings.Cut(raw, "://")
	rest, _, _ = strings.Cut(rest, "#")
	i := strings.IndexAny(rest, "/?")
	if i < 0 {
		return "/"
	}
	rest = rest[i:]
	if strings.ContainsFunc(rest, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return u.RequestURI()
	}
	if rest[0] == '?' {
		return "/" + rest
	}
	return rest
}

// send makes the engine, and sends the request through it. What comes back is
// of no interest: the records tell what was decided.
func (w *way) send(ctx context.Context, p proxy.Policy, sink audit.Sink) error {
	authority, err := ca.New("policy test")
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.PEM())
	server := newSink(authority, w)
	defer server.close()
	engine, err := proxy.New(proxy.Options{Policy: p, Dialer: server, Certificates: authority, RootCAs: roots, Audit: sink})
	if err != nil {
		return err
	}
	doors := newDoor()
	var serving sync.WaitGroup
	serving.Go(func() { _ = engine.ServeProxy(doors) }) // it ends with the engine
	defer serving.Wait()
	defer func() { _ = engine.Shutdown(ctx) }() // what is cut off is beyond ctx
	mine, theirs, err := pair()
	if err != nil {
		return err
	}
	defer mine.Close()
	doors.pass(theirs)
	if deadline, ok := ctx.Deadline(); ok {
		mine.SetDeadline(deadline)
	}
	w.speak(mine, roots)
	return nil
}

// speak is the client. Whatever it cannot do, the engine has refused.
func (w *way) speak(c net.Conn, roots *x509.CertPool) {
	absolute := "http://" + w.authority
	if w.tls {
		absolute = ""
		to := w.host.Authority(w.port)
		if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", to, to); err != nil {
			return
		}
		res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
		if err != nil {
			return
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return
		}
		secured := tls.Client(c, &tls.Config{RootCAs: roots, ServerName: w.host.String(), MinVersion: tls.VersionTLS12})
		if secured.Handshake() != nil {
			return
		}
		c = secured
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = c.Write(w.head(absolute)) // refused: the answer is there
		_, _ = c.Write(w.trial.Body)
	}()
	r := bufio.NewReader(c)
	status := readAnswer(r, w.trial.Method)
	if status == http.StatusSwitchingProtocols {
		<-sent
		_, _ = c.Write(frames(w.trial.Messages))
		_, _ = io.Copy(io.Discard, r)
	}
	c.Close()
	<-sent
}

// head is the request without its body.
func (w *way) head(absolute string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s%s HTTP/1.1\r\n", w.trial.Method, absolute, w.target)
	named := func(name string) bool {
		for _, line := range w.trial.Header {
			if n, _, _ := strings.Cut(line, ":"); strings.EqualFold(n, name) {
				return true
			}
		}
		return false
	}
	add := func(name, value string) {
		if !named(name) {
			fmt.Fprintf(&b, "%s: %s\r\n", name, value)
		}
	}
	add("Host", w.authority)
	for _, line := range w.trial.Header {
		b.WriteString(line + "\r\n")
	}
	if len(w.trial.Body) > 0 || w.trial.Method == http.MethodPost || w.trial.Method == http.MethodPut {
		add("Content-Length", fmt.Sprint(len(w.trial.Body)))
	}
	if len(w.trial.Messages) > 0 {
		add("Upgrade", "websocket")
		add("Connection", "Upgrade")
		add("Sec-WebSocket-Version", "13")
		add("Sec-WebSocket-Key", "YWdlbnRjYWdlIHRyaWFsIQ==")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// readAnswer reads one answer to its end, and the interim ones before it.
func readAnswer(r *bufio.Reader, method string) int {
	for {
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return 0
		}
		if res.StatusCode >= 200 {
			_, _ = io.Copy(io.Discard, res.Body)
		}
		res.Body.Close()
		if res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols {
			return res.StatusCode
		}
	}
}

// nobody is whom a trial asks for tokens.
type nobody struct{}

// RoundTrip implements http.RoundTripper.
func (nobody) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("a trial asks nobody for a token")
}
