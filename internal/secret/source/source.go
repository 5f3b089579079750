// Package source finds the value of a secret where the config says that it is:
// in the store, a variable, a file, another program's output, a credential of
// systemd's or a secret of podman's.
//
// There is one place for each secret and no second one to fall back on: a
// value that is missing where it was named is an error (rules 69, 70, 82).
package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/agentcage/agentcage/internal/secret/store"
)

// commandTime is how long a command may take.
const commandTime = 30 * time.Second

// Kind is the word before the colon.
type Kind string

// The kinds of sources. The zero Kind is the store.
const (
	Store        Kind = ""
	Env          Kind = "env"           // env:VARIABLE of the gateway's own environment
	Command      Kind = "cmd"           // cmd:PROGRAM ARG…, without a shell
	Shell        Kind = "sh"            // sh:TEXT, given to sh -c
	File         Kind = "file"          // file:/PATH
	SystemdCreds Kind = "systemd-creds" // systemd-creds:NAME in $CREDENTIALS_DIRECTORY (systemd.exec(5))
	Podman       Kind = "podman"        // podman:NAME
)

// Source says where a value is. The zero Source is the store.
type Source struct {
	Kind Kind
	Args []string // the command's words; else the one name or path
}

// Parse reads a source as the config has it; empty is the store.
func Parse(s string) (Source, error) {
	if s == "" || s == "store" {
		return Source{}, nil
	}
	kind, rest, ok := strings.Cut(s, ":")
	rest = strings.TrimSpace(rest)
	src := Source{Kind: Kind(kind), Args: []string{rest}}
	switch {
	case !ok:
		return Source{}, errors.New("it has no colon: write env:NAME, file:PATH, cmd:COMMAND, sh:TEXT, podman:NAME, systemd-creds:NAME or store")
	case rest == "":
		return Source{}, errors.New("nothing follows the colon")
	case strings.ContainsRune(rest, 0):
		return Source{}, errors.New("it holds a NUL")
	}
	switch src.Kind {
	case Env:
		if !store.ValidName(rest) {
			return Source{}, errors.New("it is not the name of a variable")
		}
	case File:
		if !filepath.IsAbs(rest) {
			return Source{}, errors.New("the path is not absolute")
		}
	case SystemdCreds, Podman:
		if strings.ContainsAny(rest, "/\\ \t\r\n") || strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, ".") {
			return Source{}, errors.New("it is not a plain name")
		}
	case Command:
		words, err := split(rest)
		if err != nil {
			return Source{}, err
		}
		src.Args = words
	case Shell:
	default:
		return Source{}, fmt.Errorf("there is no source %q", kind)
	}
	return src, nil
}

// Runs reports whether the source starts a program, which whoever agrees to a
// config must be shown.
func (s Source) Runs() bool { return s.Kind == Command || s.Kind == Shell || s.Kind == Podman }

// String gives the source as it is written, for messages. It is no secret.
func (s Source) String() string {
	if s.Kind == Store {
		return "the store"
	}
	return string(s.Kind) + ":" + strings.Join(s.Args, " ")
}

// Get finds the value of a secret. One newline at the end of a file's or a
// command's output is not a part of it (rule 69). Nothing of the value, and
// nothing that a program printed, is in an error.
func (s Source) Get(ctx context.Context, st store.Store, cage, name string) ([]byte, error) {
	value, err := s.read(ctx, st, cage, name)
	if err != nil {
		return nil, fmt.Errorf("cannot get secret %s from %s: %w", name, s, err)
	}
	if len(value) == 0 {
		return nil, fmt.Errorf("cannot get secret %s from %s: it is empty", name, s)
	}
	if len(value) > store.MaxValue {
		return nil, fmt.Errorf("cannot get secret %s from %s: it is longer than %d bytes", name, s, store.MaxValue)
	}
	return value, nil
}

func (s Source) read(ctx context.Context, st store.Store, cage, name string) ([]byte, error) {
	switch s.Kind {
	case Store:
		if st == nil {
			return nil, errors.New("there is no store")
		}
		return st.Get(ctx, cage, name)
	case Env:
		v, ok := os.LookupEnv(s.Args[0])
		if !ok {
			return nil, errors.New("it is not set")
		}
		return []byte(v), nil
	case File:
		return readFile(s.Args[0])
	case SystemdCreds:
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if !filepath.IsAbs(dir) {
			return nil, errors.New("systemd passed no credentials: LoadCredential= or LoadCredentialEncrypted= does it")
		}
		return readFile(filepath.Join(dir, s.Args[0]))
	case Podman:
		return store.Podman{}.Named(ctx, s.Args[0])
	case Command:
		return run(ctx, s.Args)
	case Shell:
		return run(ctx, []string{"/bin/sh", "-c", s.Args[0]})
	}
	return nil, errors.New("there is no such source")
}

func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not an ordinary file")
	}
	b, err := io.ReadAll(io.LimitReader(f, store.MaxValue+2))
	return trim(b), err
}

func trim(b []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
}

// run runs a command in the user's own environment. It has no terminal, so
// that it cannot wait for somebody who is not asked (rule 107), and its
// standard error, which may repeat a secret, goes nowhere.
func run(ctx context.Context, argv []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	value, readErr := io.ReadAll(io.LimitReader(out, store.MaxValue+2))
	if len(value) > store.MaxValue+1 {
		cancel()
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case len(value) > store.MaxValue+1:
		return nil, fmt.Errorf("it prints more than %d bytes", store.MaxValue)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("it took longer than %v", commandTime)
	case errors.As(err, &exit):
		return nil, fmt.Errorf("it failed with code %d", exit.ExitCode())
	}
	return trim(value), errors.Join(err, readErr)
}

// split cuts a command into words. Quotes of both kinds keep words together,
// and a backslash keeps the next character; nothing is expanded.
func split(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote := false, byte(0)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quote != '\'':
			if i++; i == len(s) {
				return nil, errors.New("the command ends in a backslash")
			}
			word.WriteByte(s[i])
			inWord = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, inWord = c, true
		case quote == 0 && (c == ' ' || c == '\t' || c == '\n'):
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote in the command is not closed")
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 || words[0] == "" {
		return nil, errors.New("there is no command")
	}
	return words, nil
}
