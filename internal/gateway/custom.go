package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/external"
	"github.com/agentcage/agentcage/internal/inspect/external/python"
	"github.com/agentcage/agentcage/internal/inspect/external/wasm"
	"github.com/agentcage/agentcage/internal/inspect/external/when"
)

// custom is an inspector of the user's, of any kind.
type custom interface {
	inspect.ContentInspector
	// Requests and Responses report which way content goes that it looks at.
	Requests() bool
	Responses() bool
	io.Closer
}

// reader tells the engine what an inspector is to be asked about.
type reader struct{ custom }

// Reads implements inspect.Reader.
func (r reader) Reads(*inspect.Request) inspect.Reads {
	return inspect.Reads{Request: r.Requests(), Messages: true, Responses: r.Responses()}
}

// customInspectors are those of one config, in its order.
type customInspectors struct{ all []custom }

func (c *customInspectors) list() []inspect.ContentInspector {
	var out []inspect.ContentInspector
	if c != nil {
		for _, in := range c.all {
			out = append(out, reader{in})
		}
	}
	return out
}

// Close ends all of them.
func (c *customInspectors) Close() error {
	if c == nil {
		return nil
	}
	var errs []error
	for _, in := range c.all {
		errs = append(errs, in.Close())
	}
	return errors.Join(errs...)
}

// newCustom starts the inspectors of a config: all of them, or none and an
// error with its place in the file.
func (o Options) newCustom(c *config.Config) (*customInspectors, error) {
	made := &customInspectors{}
	if o.DNSOnly {
		return made, nil
	}
	for i := range c.Inspectors {
		in, err := o.newInspector(&c.Inspectors[i])
		if err != nil {
			return nil, errors.Join(err, made.Close())
		}
		made.all = append(made.all, in)
	}
	return made, nil
}

func (o Options) newInspector(ref *config.InspectorRef) (custom, error) {
	if ref.When != "" {
		return newRule(ref)
	}
	data, isPython, err := readInspector(ref)
	if err != nil {
		return nil, err
	}
	rule := external.Rule{Name: ref.Name, Action: ref.Action}
	var in custom
	switch {
	case !isPython:
		in, err = wasm.New(context.Background(), wasm.Options{
			Rule: rule, Module: data, Config: ref.Config, Timeout: ref.Timeout, Instances: ref.Workers, Memory: ref.Memory, MaxBody: ref.MaxBody, Log: o.Log,
		})
	case o.Workers == nil:
		err = errors.New("nothing here can start its processes")
	default:
		in, err = python.New(context.Background(), o.Workers, python.Options{
			Rule: rule, File: ref.Path, Source: data, Config: ref.Config,
			Timeout: ref.Timeout, Workers: ref.Workers, Memory: ref.Memory, MaxBody: ref.MaxBody, Log: o.Log,
		})
	}
	if err != nil {
		return nil, wrong(ref, "path", 0, err.Error(), hintOf(err))
	}
	return in, nil
}

// wrong is an error of the config file.
func wrong(ref *config.InspectorRef, key string, column int, why, hint string) error {
	return config.Errors{ref.Error(key, column, why, hint)}
}

// hintOf finds what an error says that the user can do about it.
func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

func newRule(ref *config.InspectorRef) (custom, error) {
	in, err := when.New(when.Options{
		Rule: external.Rule{Name: ref.Name, Action: ref.Action}, Condition: ref.When, Reason: ref.Reason,
		Requests:  len(ref.On) == 0 || slices.Contains(ref.On, external.DirectionRequest),
		Responses: slices.Contains(ref.On, external.DirectionResponse),
	})
	var at *when.Error
	if errors.As(err, &at) {
		return nil, wrong(ref, "when", at.Column, at.Why, "")
	}
	if err != nil {
		return nil, wrong(ref, "when", 0, err.Error(), "")
	}
	return in, nil
}

// wasmMagic is how every WebAssembly module begins.
var wasmMagic = []byte("\x00asm")

// readInspector reads an inspector's file, once, and tells its kind: what it is
// decides and not what it is called, except that Python can only be told by its
// name.
func readInspector(ref *config.InspectorRef) (data []byte, isPython bool, err error) {
	fail := func(why, hint string) ([]byte, bool, error) { return nil, false, wrong(ref, "path", 0, why, hint) }
	f, err := os.Open(ref.Path)
	if err != nil {
		return fail(fmt.Sprintf("cannot read it: %v", errors.Unwrap(err)), "")
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return fail("it is not an ordinary file", "")
	}
	data, err = io.ReadAll(io.LimitReader(f, wasm.MaxModule+1))
	if err != nil {
		return fail(fmt.Sprintf("cannot read it: %v", err), "")
	}
	switch extension := filepath.Ext(ref.Path); {
	case bytes.HasPrefix(data, wasmMagic):
		return data, false, nil
	case extension == ".py" && len(data) <= python.MaxSource:
		return data, true, nil
	case extension == ".py":
		return fail(fmt.Sprintf("it is longer than %d bytes", python.MaxSource), "")
	case extension == ".wasm":
		return fail("it is no WebAssembly module", "")
	default:
		return fail("it is neither a Python file nor a WebAssembly module", "an inspector in Python has a name that ends in .py")
	}
}

// CheckInspectors finds what is wrong with a config's own inspectors as far as
// that can be told without running them.
func CheckInspectors(c *config.Config) error {
	var all config.Errors
	for i := range c.Inspectors {
		var err error
		if ref := &c.Inspectors[i]; ref.When != "" {
			_, err = newRule(ref)
		} else {
			_, _, err = readInspector(ref)
		}
		var found config.Errors
		if errors.As(err, &found) {
			all = append(all, found...)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all
}
