package cli

// The rules of what agentcage prints:
//
//   - What was asked for goes to standard output: tables, JSON, a version.
//     Everything else goes to standard error, so that a pipe gets data only.
//   - An error is one line, "error: cannot X: why", in lower case and without
//     a full stop, then "hint: …" lines that say what to do next. An error in
//     a config file begins with FILE:LINE:COL instead, as editors expect.
//   - agentcage says little while all is well, and -q says nothing.
//   - Colour and moving progress only on a terminal, and not with NO_COLOR.
//   - Text that an agent or a server chose is escaped before it is shown: a
//     host name must not be able to move the cursor.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"

	"github.com/agentcage/agentcage/internal/config"
)

// Exit codes. `run` returns the command's own code, so its own failures have
// the code that podman and docker use for theirs.
const (
	exitFailed = 1   // the command could not do what it was asked
	exitUsage  = 2   // a flag or the config is wrong, and nothing was started
	exitNotRun = 125 // run: the cage could not be made
)

// exitError ends the program with a code. An error of nil prints nothing.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// hinted is an error with lines that say what to do next.
type hinted struct {
	error
	hints []string
}

func (h *hinted) Unwrap() error { return h.error }

func withHint(err error, hints ...string) error {
	return &hinted{error: err, hints: hints}
}

// report prints an error by the rules above and returns the exit code.
func report(w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	code := exitFailed
	var exit *exitError
	if errors.As(err, &exit) {
		code = exit.code
		if exit.err == nil {
			return code
		}
	}
	var inFile config.Errors
	if errors.As(err, &inFile) {
		fmt.Fprintln(w, inFile.Error())
		return exitUsage
	}
	// An error may name a file that an agent has made.
	fmt.Fprintf(w, "error: %s\n", printableLines(err.Error()))
	for _, h := range hintsOf(err) {
		fmt.Fprintf(w, "hint: %s\n", printable(h))
	}
	return code
}

// printableLines is printable for text of several lines.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// hintsOf collects the hints of an error and of what it wraps, ours and those
// of packages that have a Hint method of their own.
func hintsOf(err error) []string {
	var hints []string
	for ; err != nil; err = errors.Unwrap(err) {
		if h, ok := err.(*hinted); ok { //nolint:errorlint // the loop itself unwraps
			hints = append(hints, h.hints...)
		}
		if h, ok := err.(interface{ Hint() string }); ok && h.Hint() != "" {
			hints = append(hints, strings.Split(h.Hint(), "\n")...)
		}
	}
	return hints
}

// printable escapes everything that could act on a terminal.
func printable(s string) string {
	for _, r := range s {
		if !strconv.IsPrint(r) {
			q := strconv.Quote(s)
			return q[1 : len(q)-1]
		}
	}
	return s
}

func isTerminal(f *os.File) bool {
	return term.IsTerminal(int(f.Fd()))
}

// paint colours text when standard error is a terminal that wants colour.
func paint(code, text string) string {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || !isTerminal(os.Stderr) {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// The colours that mean something here.
const (
	green  = "32"
	yellow = "33"
	red    = "31"
	bold   = "1"
)
