package external

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/agentcage/agentcage/internal/inspect"
)

// MaxAnswer is the most that an inspector may say about one piece of content,
// in bytes.
const MaxAnswer = 64 << 10

// maxReason is what of a reason is kept, in bytes.
const maxReason = 400

// Result is an answer as inspectors give it.
type Result struct {
	Inspector string          `json:"inspector"` // not used: the config names it
	Action    string          `json:"action"`
	Reason    string          `json:"reason"`
	Severity  string          `json:"severity"`
	Score     float64         `json:"score"`    // not used
	Metadata  json.RawMessage `json:"metadata"` // not used
}

// severities are the words of the original, older and newer.
var severities = map[string]inspect.Severity{
	"": inspect.Warning, "debug": inspect.Debug, "info": inspect.Info, "low": inspect.Info, "warning": inspect.Warning,
	"medium": inspect.Warning, "error": inspect.Error, "high": inspect.Error, "critical": inspect.Critical,
}

// ParseResult reads an answer: null, or nothing at all, lets the content pass,
// an object is a finding. Everything else is an error.
func ParseResult(data []byte) (f inspect.Finding, found bool, err error) {
	if len(data) > MaxAnswer {
		return f, false, errors.New("its answer is too long")
	}
	data = bytes.TrimSpace(data)
	if len(data) == 0 || bytes.Equal(data, []byte("null")) {
		return f, false, nil
	}
	var r Result
	if data[0] != '{' || strictly(data, &r) != nil {
		return f, false, errors.New("its answer makes no sense")
	}
	severity, ok := severities[r.Severity]
	if !ok {
		return f, false, errors.New("its answer has an unknown severity")
	}
	f = inspect.Finding{Reason: clean(r.Reason), Severity: severity}
	switch r.Action {
	case "block":
		f.Action = inspect.Blocked
	case "flag":
		f.Action = inspect.Flagged
	default:
		return inspect.Finding{}, false, errors.New("its answer has an unknown action")
	}
	return f, true, nil
}

// strictly decodes one JSON value, with nothing that is unknown and nothing
// behind it.
func strictly(data []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if len(bytes.TrimSpace(data[d.InputOffset():])) > 0 {
		return errors.New("there is more behind it")
	}
	return nil
}

// clean makes one line of text that a terminal does nothing with.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	for i := range s {
		if i > maxReason {
			return strings.TrimSpace(s[:i]) + "…"
		}
	}
	return strings.TrimSpace(s)
}

// Rule is what the config says about a custom inspector of any kind.
type Rule struct {
	Name string
	// Action is the most that is done with its findings: "block" or "" as it
	// says itself, "flag" lets pass what it would block, "observe" only
	// records. A failure is not softened by "flag".
	Action string
}

// Finding is the finding of an inspector as the config wants it.
func (r Rule) Finding(f inspect.Finding) inspect.Result {
	f.Inspector = r.Name
	if f.Reason == "" {
		f.Reason = fmt.Sprintf("inspector %s gave no reason", r.Name)
	}
	switch r.Action {
	case "flag":
		f.Action = inspect.Flagged
	case "observe":
		f.Mode = inspect.Observed
	}
	return inspect.Done(f)
}

// Failed is what comes of an inspector that did not give an answer. why holds
// nothing of the content.
func (r Rule) Failed(why string) inspect.Result {
	f := inspect.Finding{
		Inspector: r.Name, Action: inspect.Blocked, Severity: inspect.Error,
		Reason: fmt.Sprintf("inspector %s failed: %s", r.Name, why),
	}
	if r.Action == "observe" {
		f.Mode = inspect.Observed
	}
	return inspect.Done(f)
}

// Answer turns what an inspector said into a result.
func (r Rule) Answer(data []byte) inspect.Result {
	f, found, err := ParseResult(data)
	switch {
	case err != nil:
		return r.Failed(err.Error())
	case !found:
		return inspect.Done()
	default:
		return r.Finding(f)
	}
}

// Hello is the first thing that an inspector says, once it is configured.
type Hello struct {
	Protocol  int    `json:"protocol"`
	Inspector string `json:"inspector"` // what it calls itself
	Request   bool   `json:"request"`   // whether it looks at what goes to servers
	Response  bool   `json:"response"`  // whether it looks at what comes back
	Log       string `json:"log"`       // what it printed
	Error     string `json:"error"`     // why it cannot be used
	Hint      string `json:"hint"`
}

// SetupError says why an inspector cannot be used.
type SetupError struct{ Why, Fix string }

func (e *SetupError) Error() string { return e.Why }

// Hint tells the user what to do; it may be empty.
func (e *SetupError) Hint() string { return e.Fix }

// ParseHello reads a hello. The content of no request is known to an inspector
// by then, so its own words are passed on.
func ParseHello(data []byte) (Hello, error) {
	var h Hello
	if len(data) > MaxAnswer || strictly(data, &h) != nil {
		return Hello{}, errors.New("it did not say a hello that makes sense")
	}
	switch {
	case h.Error != "":
		return Hello{}, &SetupError{Why: clean(h.Error), Fix: clean(h.Hint)}
	case h.Protocol != Protocol:
		return Hello{}, fmt.Errorf("it speaks version %d of the protocol, and this version of agentcage %d", h.Protocol, Protocol)
	}
	return h, nil
}

// ErrIdle is said of an inspector that is never asked.
var ErrIdle = errors.New("it looks at neither requests nor responses")

// Asks reports whether an inspector wants to be asked about content that goes
// this way.
func (h Hello) Asks(d inspect.Direction) bool {
	if d == inspect.ToServer {
		return h.Request
	}
	return h.Response
}
