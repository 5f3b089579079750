// Package when decides by a condition of one line, such as
//
//	method == "DELETE" && host endsWith "github.com"
//
// over the fields of package external. A condition is compiled and its types
// are checked when the config is read, so that it cannot fail for a typo in the
// middle of the night.
//
// The condition is the user's and what it looks at is the agent's. What would
// let the agent choose how long it takes or how much memory is refused at
// compile time: loops in loops, patterns that are not written out, and everything
// that makes texts longer.
package when

import (
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"

	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/external"
)

// maxNodes bounds a condition, and memory what it may allocate, in the units of
// the library: elements of lists.
const (
	maxNodes = 500
	memory   = 100_000
)

// MaxBody is the longest body that a condition is asked about, in bytes.
const MaxBody = 10 << 20

// allowed are the built-in functions. Each takes time and memory that are
// linear in what it gets, and gives back nothing longer.
var allowed = []string{
	"all", "any", "none", "one", "count", "find", "len", "abs", "int", "float", "string", "max", "min",
	"trim", "trimPrefix", "trimSuffix", "lower", "upper", "indexOf", "lastIndexOf", "hasPrefix", "hasSuffix", "first", "last",
}

// env is what a condition sees: the fields, and header().
type env struct {
	external.Fields
	Header func(name string) string `expr:"header"`
}

// Options describe one rule.
type Options struct {
	external.Rule

	Condition string
	Reason    string // when empty, "rule NAME matched"
	// Requests and Responses say which way content goes that is looked at.
	Requests, Responses bool
}

// Inspector is a rule. Its methods are safe for concurrent use.
type Inspector struct {
	o       Options
	program *vm.Program
	body    bool // it looks at the body
}

var _ inspect.ContentInspector = (*Inspector)(nil)

// Error says what is wrong with a condition, and where in it.
type Error struct {
	Column int // in characters, from 0
	Why    string
}

func (e *Error) Error() string { return e.Why }

// New compiles a rule. What is wrong with its condition is an *Error.
func New(o Options) (*Inspector, error) {
	if o.Reason == "" {
		o.Reason = fmt.Sprintf("rule %s matched", o.Name)
	}
	if !o.Requests && !o.Responses {
		return nil, external.ErrIdle
	}
	program, body, err := compile(o.Condition)
	if err != nil {
		return nil, err
	}
	return &Inspector{o: o, program: program, body: body}, nil
}

// Check reports what is wrong with a condition, as New does.
func Check(condition string) error {
	_, _, err := compile(condition)
	return err
}

// compile also reports whether the condition looks at the body.
func compile(condition string) (program *vm.Program, body bool, err error) {
	options := []expr.Option{
		expr.Env(env{}), expr.AsBool(), expr.MaxNodes(maxNodes), expr.DisableIfOperator(), expr.DisableAllBuiltins(),
		expr.Optimize(false), // bounds looks at what was written
	}
	for _, name := range allowed {
		options = append(options, expr.EnableBuiltin(name))
	}
	program, err = expr.Compile(condition, options...)
	var at *file.Error
	switch {
	case errors.As(err, &at):
		return nil, false, &Error{Column: at.Column, Why: at.Message}
	case err != nil:
		return nil, false, &Error{Why: err.Error()}
	}
	root := program.Node()
	b := &bounds{source: condition}
	b.visit(root)
	return program, b.body, b.err()
}

// Name returns the name that the config gives it.
func (in *Inspector) Name() string { return in.o.Name }

// Requests reports whether it looks at what goes to servers.
func (in *Inspector) Requests() bool { return in.o.Requests }

// Responses reports whether it looks at what comes back.
func (in *Inspector) Responses() bool { return in.o.Responses }

// InspectContent evaluates the condition. What goes wrong blocks.
func (in *Inspector) InspectContent(ctx context.Context, c *inspect.Content) (result inspect.Result) {
	if c.Direction == inspect.ToServer && !in.o.Requests || c.Direction != inspect.ToServer && !in.o.Responses {
		return inspect.Done()
	}
	defer func() {
		if recover() != nil {
			result = in.o.Failed("its condition cannot be evaluated")
		}
	}()
	fields, err := in.fields(ctx, c)
	if err != nil {
		return in.o.Failed(err.Error())
	}
	machine := vm.VM{MemoryBudget: memory}
	out, err := machine.Run(in.program, env{Fields: *fields, Header: header(fields.Headers)})
	matched, ok := out.(bool)
	switch {
	case err != nil || !ok:
		return in.o.Failed("its condition cannot be evaluated")
	case !matched:
		return inspect.Done()
	}
	f := inspect.Finding{Reason: in.o.Reason, Severity: inspect.Error}
	if in.o.Action == "flag" {
		f.Severity = inspect.Warning
	}
	return in.o.Finding(f)
}

func (in *Inspector) fields(ctx context.Context, c *inspect.Content) (*external.Fields, error) {
	if !in.body {
		return external.HeadOf(c)
	}
	f, err := external.FieldsOf(ctx, c)
	if err == nil && f.BodySize > MaxBody {
		err = errors.New("the body is too long for a condition")
	}
	return f, err
}

// Close does nothing: a rule holds nothing.
func (in *Inspector) Close() error { return nil }

// header gives all values of a header, joined as RFC 9110 section 5.3 has it.
func header(headers [][2]string) func(string) string {
	return func(name string) string {
		name = textproto.CanonicalMIMEHeaderKey(name)
		var values []string
		for _, h := range headers {
			if h[0] == name {
				values = append(values, h[1])
			}
		}
		return strings.Join(values, ", ")
	}
}
