package cli

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/gateway"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/secret"
)

// maxTrialBody bounds what is read of a body that is to be tried.
const maxTrialBody = 1 << 30

func newPolicy() *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Try out what a config decides",
		Args:  knownCommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SuggestionsMinimumDistance = 2
	c.AddCommand(newPolicyTest())
	return c
}

type policyTestFlags struct {
	config   string
	method   string
	headers  []string
	body     string
	messages []string
	json     bool
}

func newPolicyTest() *cobra.Command {
	var f policyTestFlags
	c := &cobra.Command{
		Use:   "test -c FILE URL",
		Short: "Say what would become of a request, and why",
		Long: `Test sends a request through the gateway's own engine and inspectors, to a server
inside this process that takes everything: nothing is looked up in DNS and
nothing leaves. It prints what each inspector said, in the order in which they
were asked, up to the first that blocks, and the verdict.

Not tried: what a name resolves to, and what earlier requests used up of the rate
limit and the budgets.

Exit codes: 0 the request is allowed (flagged included), 1 it is blocked, 2 that
cannot be told.`,
		Example: `  agentcage policy test -c cage.yaml https://api.example.com/v1/models
  agentcage policy test -c cage.yaml --header 'Content-Type: application/json' --body @request.json https://api.example.com/v1/chat`,
		Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args[0]) },
	}
	c.Flags().StringVarP(&f.config, "config", "c", "", "config `FILE` (required)")
	c.Flags().StringVar(&f.method, "method", "", "`METHOD` of the request (GET, or POST with a body)")
	c.Flags().StringArrayVar(&f.headers, "header", nil, "`'NAME: VALUE'` of a header; repeatable")
	c.Flags().StringVar(&f.body, "body", "", "the body: `TEXT`, @FILE, or - for standard input")
	c.Flags().StringArrayVar(&f.messages, "message", nil, "`TEXT` to send over the WebSocket that the request opens; repeatable")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	_ = c.MarkFlagRequired("config") // fails only for a flag that does not exist
	return c
}

func (f *policyTestFlags) run(c *cobra.Command, target string) error {
	cfg, err := loadConfig(f.config)
	if err != nil {
		return err
	}
	warn(c, cfg)
	trial, err := f.trial(c, target)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	workers, err := runWorkers(cfg, &cage.Spec{})
	if err != nil {
		return &exitError{exitUsage, err}
	}
	defer workers.Close()
	out, err := gateway.Try(c.Context(), gateway.Options{Config: cfg, Getenv: os.LookupEnv, Workers: workers.starter(), Secret: standIn}, trial)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	write := writeOutcome
	if f.json {
		write = writeOutcomeJSON
	}
	if err := write(c.OutOrStdout(), out); err != nil {
		return &exitError{exitUsage, fmt.Errorf("cannot write the verdict: %w", err)}
	}
	if out.Decision == inspect.Blocked {
		return &exitError{exitFailed, nil}
	}
	return nil
}

// standIn is the value of every secret in a trial: what becomes of a request
// does not depend on it, and it is of no use to ask for the real one.
func standIn(config.InjectionRule) (secret.Value, error) {
	return secret.New([]byte(rand.Text()))
}

func (f *policyTestFlags) trial(c *cobra.Command, target string) (gateway.Trial, error) {
	t := gateway.Trial{Method: f.method, URL: target, Messages: f.messages}
	for _, h := range f.headers {
		if err := checkHeader(h); err != nil {
			return t, err
		}
		t.Header = append(t.Header, h)
	}
	var err error
	if t.Body, err = f.readBody(c.InOrStdin()); err != nil {
		return t, err
	}
	if len(t.Messages) > 0 && len(t.Body) > 0 {
		return t, errors.New("cannot use --message with --body: a request that opens a WebSocket has no body")
	}
	switch {
	case t.Method != "":
		if strings.ContainsFunc(t.Method, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return t, fmt.Errorf("cannot use the method %q: it is no word", t.Method)
		}
	case c.Flags().Changed("body"):
		t.Method = http.MethodPost
	default:
		t.Method = http.MethodGet
	}
	return t, nil
}

// checkHeader refuses what would not be one line of the request's header, and
// what would move the end of the request.
func checkHeader(h string) error {
	name, _, found := strings.Cut(h, ":")
	switch {
	case !found || name == "" || strings.ContainsAny(name, " \t"):
		return withHint(fmt.Errorf("cannot use the header %q: it has no name", h), "write --header 'Name: value'")
	case strings.ContainsAny(h, "\r\n\x00"):
		return fmt.Errorf("cannot use the header %q: it has a line break", h)
	case strings.EqualFold(name, "Content-Length"), strings.EqualFold(name, "Transfer-Encoding"):
		return withHint(fmt.Errorf("cannot use the header %q: it says where the body ends", h), "leave it out; --body sets it")
	}
	return nil
}

func (f *policyTestFlags) readBody(stdin io.Reader) ([]byte, error) {
	from, file := stdin, "standard input"
	if name, isFile := strings.CutPrefix(f.body, "@"); isFile {
		r, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("cannot read the body: %w", err)
		}
		defer r.Close()
		from, file = r, name
	} else if f.body != "-" {
		return []byte(f.body), nil
	}
	b, err := io.ReadAll(io.LimitReader(from, maxTrialBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read the body: %w", err)
	case len(b) > maxTrialBody:
		return nil, fmt.Errorf("cannot read the body: %s has more than %d bytes", file, maxTrialBody)
	}
	return b, nil
}

// outcomeOf is what a step or a verdict is called: its mode, where it is not
// acted upon, or its action.
func outcomeOf(f inspect.Finding) string {
	if f.Action != inspect.Allowed {
		switch f.Mode {
		case inspect.Observed:
			return "observed"
		case inspect.Exempt:
			return "exempt"
		}
	}
	return f.Action.String()
}

func writeOutcome(w io.Writer, o gateway.Outcome) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range o.Steps {
		text := s.Reason
		if outcomeOf(s) != s.Action.String() {
			text = "would be " + s.Action.String() + ": " + text
		}
		if s.Rule != "" {
			text += " [rule " + s.Rule + "]"
		}
		if text == "" {
			fmt.Fprintf(t, "%s\t%s\n", printable(s.Inspector), outcomeOf(s))
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", printable(s.Inspector), outcomeOf(s), printable(text))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	verdict := o.Decision.String()
	switch {
	case o.Decision != inspect.Allowed:
		verdict += ": " + printable(o.Reason)
	case o.Unread:
		verdict += ": TLS is passed through, and nothing in it is read"
	}
	_, err := fmt.Fprintln(w, verdict)
	return err
}

// trialStep is one step in JSON.
type trialStep struct {
	Inspector string `json:"inspector"`
	Action    string `json:"action"`
	Mode      string `json:"mode"`
	Rule      string `json:"rule,omitempty"`
	Reason    string `json:"reason,omitempty"`
	Severity  string `json:"severity,omitempty"`
}

func writeOutcomeJSON(w io.Writer, o gateway.Outcome) error {
	steps := make([]trialStep, 0, len(o.Steps))
	for _, s := range o.Steps {
		mode := "enforced"
		if outcomeOf(s) != s.Action.String() {
			mode = outcomeOf(s)
		}
		steps = append(steps, trialStep{s.Inspector, s.Action.String(), mode, s.Rule, s.Reason, string(s.Severity)})
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(struct {
		Decision string      `json:"decision"`
		Reason   string      `json:"reason,omitempty"`
		Unread   bool        `json:"unread,omitempty"`
		Steps    []trialStep `json:"steps"`
	}{o.Decision.String(), o.Reason, o.Unread, steps})
}
