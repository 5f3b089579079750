package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/control"
	"github.com/agentcage/agentcage/internal/secret/store"
)

// leastSecret is the shortest value that can be found in what leaves and comes
// back: a shorter one would be found everywhere.
const leastSecret = 8

// secretFlags are common to the commands on secrets.
type secretFlags struct {
	store  string
	config string
	json   bool
}

func newSecret() *cobra.Command {
	c := &cobra.Command{
		Use:   "secret",
		Short: "Keep the secrets that a cage's placeholders stand for",
		Long: `A secret has the name of the variable in which the agent finds its placeholder,
and belongs to one cage. The value is kept by a store: files encrypted with age,
podman's secrets, or systemd-creds. A cage that is running uses a changed value
from its next request on, and keeps the old one out of what comes back.

  agentcage secret set my-agent OPENAI_API_KEY       asks for the value
  agentcage secret set my-agent OPENAI_API_KEY < f   reads it
  agentcage secret import my-agent .env              sets all that a file names`,
		Args: knownCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newSecretSet(), newSecretList(), newSecretRemove(), newSecretImport())
	return c
}

func (f *secretFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.store, "store", "", "`STORE` to use: age, podman or systemd-creds (default: the config's, or age)")
	c.Flags().StringVarP(&f.config, "config", "c", "", "config `FILE` of the cage")
}

func newSecretSet() *cobra.Command {
	var f secretFlags
	c := &cobra.Command{
		Use:   "set CAGE NAME",
		Short: "Set a secret, from a hidden prompt or standard input",
		Args:  exactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkSecretName(args[1]); err != nil {
				return err
			}
			value, err := readValue(os.Stdin, c.ErrOrStderr(), args[1])
			if err != nil {
				return err
			}
			return f.set(c, args[0], map[string][]byte{args[1]: value})
		},
	}
	f.register(c)
	return c
}

func newSecretImport() *cobra.Command {
	var f secretFlags
	c := &cobra.Command{
		Use:   "import CAGE [FILE]",
		Short: "Set every secret of a file of NAME=VALUE lines, or of standard input",
		Long: `Import reads lines of NAME=VALUE, as in a .env file: empty lines, lines that
begin with #, and a leading "export " are passed over; a value may stand in
single or double quotes. A file whose first character is { is a JSON object.
Nothing is set unless all of it can be read.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			file := "-"
			if len(args) == 2 {
				file = args[1]
			}
			values, err := readSecrets(file)
			if err != nil {
				return err
			}
			return f.set(c, args[0], values)
		},
	}
	f.register(c)
	return c
}

func newSecretRemove() *cobra.Command {
	var f secretFlags
	c := &cobra.Command{
		Use:     "rm CAGE NAME",
		Aliases: []string{"remove", "delete"},
		Short:   "Remove a secret",
		Args:    exactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := f.open()
			if err != nil {
				return err
			}
			cage, name := args[0], args[1]
			if err := s.Remove(c.Context(), cage, name); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Secret '%s.%s' removed.\n", cage, name)
			return tellGateways(c, cage, secretChange{Name: name})
		},
	}
	f.register(c)
	return c
}

func newSecretList() *cobra.Command {
	var f secretFlags
	c := &cobra.Command{
		Use:     "list CAGE",
		Aliases: []string{"ls"},
		Short:   "List a cage's secrets, and those that are missing",
		Long: `List shows the secrets that the config names, with type and status, or without a
config the names of those that are kept. Values are never shown.

Exit codes: 0, and 1 when one is missing.`,
		Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return f.list(c, args[0]) },
	}
	f.register(c)
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return c
}

func checkSecretName(name string) error {
	if !store.ValidName(name) {
		return &exitError{exitUsage, withHint(fmt.Errorf("cannot use %q as the name of a secret", name), "a name is that of an environment variable: letters, digits and _")}
	}
	return nil
}

// set keeps all values and then tells the gateways that run.
func (f *secretFlags) set(c *cobra.Command, cage string, values map[string][]byte) error {
	s, err := f.open()
	if err != nil {
		return err
	}
	names := sortedKeys(values)
	for _, name := range names {
		if len(values[name]) < leastSecret {
			return withHint(fmt.Errorf("cannot set secret %s: it has %d bytes, and %d are the least", name, len(values[name]), leastSecret),
				"a shorter value would be found in everything that leaves and comes back")
		}
	}
	for _, name := range names {
		if err := s.Set(c.Context(), cage, name, values[name]); err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "Secret '%s.%s' set.\n", cage, name)
	}
	var failed error
	for _, name := range names {
		failed = errors.Join(failed, tellGateways(c, cage, secretChange{Name: name, Value: values[name]}))
	}
	return failed
}

// secretChange is what a running gateway is told. Without a value the secret
// was removed.
type secretChange struct {
	Name  string `json:"name"`
	Value []byte `json:"value,omitempty"`
}

// opSecret is the call that carries a secretChange.
const opSecret = "secret"

// tellGateways makes running cages use a changed secret. That it could not be
// told is an error: the user believes that the old value is out of use.
func tellGateways(c *cobra.Command, cage string, change secretChange) error {
	dir, err := controlDir(cage)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), 10*time.Second)
	defer cancel()
	n, err := control.Call(ctx, dir, opSecret, change, nil)
	switch {
	case errors.Is(err, control.ErrNobody):
		return nil
	case err != nil:
		return withHint(fmt.Errorf("cannot tell the running cage of secret %s: %w", change.Name, err), "start the cage again to use the new value")
	}
	fmt.Fprintf(c.ErrOrStderr(), "agentcage: in use by %s of cage %s\n", gateways(n), cage)
	return nil
}

func gateways(n int) string {
	if n == 1 {
		return "1 running gateway"
	}
	return fmt.Sprintf("%d running gateways", n)
}

// controlDir is where the gateways of a cage that run now listen for commands.
func controlDir(cage string) (string, error) {
	if !config.ValidName(cage) {
		return "", &exitError{exitUsage, fmt.Errorf("cannot use %q as the name of a cage", cage)}
	}
	return stateDir("control", cage)
}

// secretRow is a line of `secret list`.
type secretRow struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Status string `json:"status"`
}

func (f *secretFlags) list(c *cobra.Command, cage string) error {
	s, err := f.open()
	if err != nil {
		return err
	}
	kept, err := s.List(c.Context(), cage)
	if err != nil {
		return err
	}
	cfg, err := f.configOf(cage)
	if err != nil {
		return err
	}
	rows, missing := secretRows(cfg, kept)
	switch {
	case f.json:
		if rows == nil {
			rows = []secretRow{}
		}
		e := json.NewEncoder(c.OutOrStdout())
		e.SetIndent("", "  ")
		if err := e.Encode(rows); err != nil {
			return err
		}
	case cfg == nil:
		for _, name := range kept {
			fmt.Fprintln(c.OutOrStdout(), name)
		}
	default:
		fmt.Fprintf(c.OutOrStdout(), "%-30s %-12s %s\n", "NAME", "TYPE", "STATUS")
		for _, r := range rows {
			fmt.Fprintf(c.OutOrStdout(), "%-30s %-12s %s\n", r.Name, r.Type, r.Status)
		}
	}
	if missing {
		return &exitError{exitFailed, nil}
	}
	return nil
}

// secretRows are the secrets that the config wants, then those that are kept
// besides.
func secretRows(cfg *config.Config, kept []string) (rows []secretRow, missing bool) {
	seen := make(map[string]bool)
	add := func(name, kind string, here bool) {
		if seen[name] {
			return
		}
		seen[name] = true
		status := "ok"
		if !here {
			status, missing = "MISSING", true
		}
		rows = append(rows, secretRow{name, kind, status})
	}
	if cfg != nil {
		for _, r := range cfg.Injection.Rules {
			add(r.Env, "injection", slices.Contains(kept, r.Env))
		}
		for _, name := range cfg.Container.PodmanSecrets {
			add(name, "direct", slices.Contains(kept, name))
		}
	}
	for _, name := range kept {
		add(name, "unused", true)
	}
	return rows, missing
}

// configOf is the config of the cage: the one that was named, or that of the
// working directory when it is of this cage and was trusted before.
func (f *secretFlags) configOf(cage string) (*config.Config, error) {
	if f.config != "" {
		cfg, err := loadConfig(f.config)
		if err == nil && cfg.Name != cage {
			err = &exitError{exitUsage, fmt.Errorf("config name '%s' does not match cage '%s'", cfg.Name, cage)}
		}
		return cfg, err
	}
	cfg, err := projectConfig(os.Stdin, io.Discard, false)
	if err != nil || cfg == nil || cfg.Name != cage {
		return nil, nil //nolint:nilerr // a config that nobody trusts is none
	}
	return cfg, nil
}

// open returns the store that the flags name.
func (f *secretFlags) open() (store.Store, error) {
	return openStore(f.store)
}

// openStore returns a store by its kind; empty is age.
func openStore(kind string) (store.Store, error) {
	switch kind {
	case "", "age":
		data, err := dataDir("secrets")
		if err != nil {
			return nil, err
		}
		conf, err := configDir()
		if err != nil {
			return nil, err
		}
		return store.NewAge(data, filepath.Join(conf, "key.txt"), askPassphrase), nil
	case "podman":
		return store.Podman{}, nil
	case "systemd-creds":
		data, err := dataDir("credentials")
		if err != nil {
			return nil, err
		}
		return store.NewCreds(data), nil
	}
	return nil, &exitError{exitUsage, withHint(fmt.Errorf("there is no store %q", kind), "stores are age, podman and systemd-creds")}
}

// dataDir and configDir are agentcage's own below XDG_DATA_HOME and
// XDG_CONFIG_HOME (XDG Base Directory Specification).
func dataDir(parts ...string) (string, error) {
	return userDir("XDG_DATA_HOME", filepath.Join(".local", "share"), parts...)
}

func configDir(parts ...string) (string, error) {
	return userDir("XDG_CONFIG_HOME", ".config", parts...)
}

func userDir(variable, below string, parts ...string) (string, error) {
	base := os.Getenv(variable)
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", withHint(fmt.Errorf("cannot find the home directory: %w", err), "set HOME or "+variable)
		}
		base = filepath.Join(home, below)
	}
	return filepath.Join(append([]string{base, "agentcage"}, parts...)...), nil
}

// askPassphrase is for a key that has one.
func askPassphrase() (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", errors.New("it has a passphrase, and there is no terminal to ask for it")
	}
	defer tty.Close()
	p, err := hidden(tty, tty, "Passphrase of the key of agentcage's secrets: ")
	return string(p), err
}

// readValue reads a secret from a hidden prompt, or from what is not a
// terminal without one newline at its end.
func readValue(in *os.File, prompt io.Writer, name string) ([]byte, error) {
	var value []byte
	var err error
	if isTerminal(in) {
		value, err = hidden(in, prompt, "Value of "+name+": ")
	} else {
		value, err = io.ReadAll(io.LimitReader(in, store.MaxValue+2))
		value = bytes.TrimSuffix(value, []byte("\n"))
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read the value: %w", err)
	case len(value) == 0:
		return nil, errors.New("empty secret value")
	case len(value) > store.MaxValue:
		return nil, fmt.Errorf("the value is longer than %d bytes", store.MaxValue)
	}
	return value, nil
}

func hidden(in *os.File, out io.Writer, prompt string) ([]byte, error) {
	fmt.Fprint(out, prompt)
	defer fmt.Fprintln(out)
	return term.ReadPassword(int(in.Fd()))
}

// maxImport bounds a file of secrets, in bytes and in secrets.
const (
	maxImport      = 1 << 20
	maxImportNames = 1000
)

func readSecrets(file string) (map[string][]byte, error) {
	in := os.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("cannot read secrets: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxImport+1))
	if err == nil && len(data) > maxImport {
		err = fmt.Errorf("it is longer than %d bytes", maxImport)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read secrets from %s: %w", file, err)
	}
	values, err := parseSecrets(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read secrets from %s: %w", file, err)
	}
	if len(values) == 0 || len(values) > maxImportNames {
		return nil, fmt.Errorf("cannot read secrets from %s: it names %d, and 1 to %d are possible", file, len(values), maxImportNames)
	}
	return values, nil
}

// parseSecrets reads both forms of a file. Its errors name lines and never
// what is in them.
func parseSecrets(data []byte) (map[string][]byte, error) {
	values := make(map[string][]byte)
	set := func(where, name, value string) error {
		switch _, twice := values[name]; {
		case !store.ValidName(name):
			return fmt.Errorf("%s: the name is not that of a variable", where)
		case value == "":
			return fmt.Errorf("%s: empty secret value", where)
		case twice:
			return fmt.Errorf("%s: %s is set twice", where, name)
		}
		values[name] = []byte(value)
		return nil
	}
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		var object map[string]string
		if json.Unmarshal(data, &object) != nil {
			return nil, errors.New("it is no JSON object of texts")
		}
		for _, name := range sortedKeys(object) {
			if err := set("key "+printable(name), name, object[name]); err != nil {
				return nil, err
			}
		}
		return values, nil
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxImport+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		where := fmt.Sprintf("line %d", n)
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if !ok {
			return nil, fmt.Errorf("%s: it is not NAME=VALUE", where)
		}
		if err := set(where, strings.TrimSpace(name), unquoted(strings.TrimSpace(value))); err != nil {
			return nil, err
		}
	}
	return values, lines.Err()
}

// unquoted takes one pair of quotes away. In double quotes \n, \" and \\ mean
// what they mean in a .env file.
func unquoted(s string) string {
	if len(s) < 2 || s[0] != s[len(s)-1] {
		return s
	}
	switch s[0] {
	case '\'':
		return s[1 : len(s)-1]
	case '"':
		return strings.NewReplacer(`\n`, "\n", `\"`, `"`, `\\`, `\`).Replace(s[1 : len(s)-1])
	}
	return s
}
