package cli

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/agentcage/agentcage/internal/atomicfile"
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/secret/source"
)

// A cage.yaml that lies in the working directory came with a repository, or
// may have been written by the last agent that worked there. It can open
// hosts and mount paths, so it is used only after a person has seen what it
// does: by naming it with -c, by answering yes, or with 'agentcage trust'.
// The decision is for these very bytes and those of the inspectors that it runs
// (docs/adr/0004).

// defaultConfig is the file that run looks for in the working directory.
const defaultConfig = "cage.yaml"

// trusted is the record of one decision.
type trusted struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

func newTrust() *cobra.Command {
	var forget bool
	c := &cobra.Command{
		Use:   "trust [FILE]",
		Short: "Allow a cage.yaml to be used without naming it",
		Long: `Trust shows what a config does to this machine and records that you have seen it.
From then on 'agentcage run' uses the file when it finds it in the working
directory, until its content or that of an inspector it names changes. The
default FILE is cage.yaml.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			file := defaultConfig
			if len(args) == 1 {
				file = args[0]
			}
			if forget {
				return forgetTrust(file)
			}
			cfg, err := loadConfig(file)
			if err != nil {
				return err
			}
			fmt.Fprint(c.OutOrStdout(), effects(cfg))
			return recordTrust(cfg)
		},
	}
	c.Flags().BoolVar(&forget, "forget", false, "take the decision back")
	return c
}

// projectConfig returns the config of the working directory, or nil when there
// is none. A file that nobody has decided about is an error, or a question
// when there is somebody to ask.
func projectConfig(in *os.File, out io.Writer, ask bool) (*config.Config, error) {
	if _, err := os.Lstat(defaultConfig); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	cfg, err := loadConfig(defaultConfig)
	if err != nil {
		return nil, err
	}
	if isTrusted(cfg) {
		return cfg, nil
	}
	if ask && confirm(in, out, cfg) {
		return cfg, recordTrust(cfg)
	}
	return nil, &exitError{exitUsage, withHint(
		errors.New("cannot use cage.yaml: it is new or has changed, and nobody has agreed to it"),
		"read it, then run 'agentcage trust', or name it with '-c cage.yaml'",
		"this file came with the directory: it decides what a cage may reach and see")}
}

func confirm(in *os.File, out io.Writer, cfg *config.Config) bool {
	fmt.Fprintf(out, "%s is new or has changed since you last used it.\n%sUse it? [y/N] ", cfg.File, effects(cfg))
	line, err := bufio.NewReader(in).ReadString('\n')
	return err == nil && strings.EqualFold(strings.TrimSpace(line), "y")
}

// effects lists everything a config does beyond the cage itself, one a line.
func effects(cfg *config.Config) string {
	var b strings.Builder
	line := func(what string, items ...string) {
		if len(items) > 0 {
			fmt.Fprintf(&b, "  %-22s %s\n", what, printable(strings.Join(items, ", ")))
		}
	}
	line("hosts it opens", entryNames(cfg.Domains)...)
	line("hosts not inspected", names(cfg.Domains.Passthrough)...)
	line("private addresses", privateNames(cfg)...)
	line("addresses it sets", hostLines(cfg)...)
	line("extra authorities", cfg.Upstream.CAFiles...)
	line("upstream proxy", nonEmpty(cfg.Upstream.Proxy)...)
	line("DNS servers", cfg.Upstream.DNSServers...)
	line("paths read-write", cfg.Process.ReadWrite...)
	line("paths read-only", cfg.Process.ReadOnly...)
	line("credentials it shows", cfg.Process.AllowSensitive...)
	line("guards it lifts", cfg.Process.Unguarded...)
	if cfg.Process.Home == "persist" {
		line("home it keeps", cfg.Name)
	}
	line("environment", sortedKeys(cfg.Process.Env)...)
	line("secrets it sends", secretLines(cfg)...)
	line("programs it runs", programs(cfg)...)
	line("values it looks for", variables(cfg)...)
	line("checks it weakens", weakened(cfg)...)
	return b.String()
}

// secretLines name each secret with where it comes from and where it may go.
func secretLines(cfg *config.Config) []string {
	var out []string
	for _, r := range cfg.Injection.Rules {
		to := "nowhere"
		if len(r.InjectTo) > 0 {
			var hosts []string
			for _, t := range r.InjectTo {
				dot := ""
				if t.Zone {
					dot = "."
				}
				hosts = append(hosts, dot+t.Host.String())
			}
			to = strings.Join(hosts, " ")
		}
		out = append(out, fmt.Sprintf("%s from %s to %s", r.Env, cmp.Or(r.Source, "the store"), to))
	}
	return out
}

// variables are the names of those whose values are looked for.
func variables(cfg *config.Config) []string {
	var out []string
	for _, p := range cfg.Secrets.ExtraPatterns {
		out = append(out, nonEmpty(p.Env)...)
	}
	return out
}

// programs are those that run outside of the cage.
func programs(cfg *config.Config) []string {
	out := inspectorFiles(cfg)
	for _, r := range cfg.Injection.Rules {
		if s, err := source.Parse(r.Source); err == nil && s.Runs() {
			out = append(out, s.String())
		}
	}
	return out
}

// weakened are the built-in inspectors that are off, or that block nothing or
// not everything.
func weakened(cfg *config.Config) []string {
	var out []string
	for _, i := range []struct {
		name, action string
		on           bool
	}{
		{"secrets", cfg.Secrets.Action, cfg.Secrets.Enabled},
		{"entropy", cfg.Entropy.Action, cfg.Entropy.Enabled},
		{"content-type", cfg.ContentType.Action, cfg.ContentType.Enabled},
	} {
		switch {
		case !i.on:
			out = append(out, i.name+" is off")
		case i.action != "block":
			out = append(out, i.name+" does not block")
		}
	}
	for _, e := range append(cfg.Observe[:len(cfg.Observe):len(cfg.Observe)], cfg.Exempt...) {
		out = append(out, e.Inspector+" has exceptions")
	}
	return slices.Compact(out)
}

func entryNames(d config.Domains) []string {
	if d.Mode == config.Blocklist {
		return append([]string{"everything but"}, names(d.Entries)...)
	}
	if len(d.Entries) == 0 {
		return []string{"none"}
	}
	return names(d.Entries)
}

func names(entries []config.Entry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, e.Host.String())
	}
	return out
}

func privateNames(cfg *config.Config) []string {
	var out []string
	for _, p := range cfg.Upstream.AllowPrivate {
		out = append(out, p.Name.String()+p.Range)
	}
	for _, e := range cfg.Domains.Entries {
		if e.Private {
			out = append(out, e.Host.String())
		}
	}
	return out
}

func hostLines(cfg *config.Config) []string {
	var out []string
	for name, addr := range cfg.Upstream.Hosts {
		out = append(out, name.String()+"="+addr.String())
	}
	slices.Sort(out)
	return out
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}

func isTrusted(cfg *config.Config) bool {
	record, err := trustFile(cfg.File)
	if err != nil {
		return false
	}
	raw, err := os.ReadFile(record)
	if err != nil {
		return false
	}
	now, err := sumOf(cfg)
	if err != nil {
		return false
	}
	var t trusted
	return json.Unmarshal(raw, &t) == nil && t.SHA256 == now
}

func recordTrust(cfg *config.Config) error {
	record, err := trustFile(cfg.File)
	if err != nil {
		return err
	}
	abs, err := filepath.Abs(cfg.File)
	if err != nil {
		return fmt.Errorf("cannot record the decision: %w", err)
	}
	now, err := sumOf(cfg)
	if err != nil {
		return fmt.Errorf("cannot record the decision: %w", err)
	}
	raw, err := json.Marshal(trusted{Path: abs, SHA256: now})
	if err == nil {
		err = atomicfile.Write(record, raw)
	}
	if err != nil {
		return fmt.Errorf("cannot record the decision: %w", err)
	}
	return nil
}

// maxProgram bounds what is read of an inspector: the longest kind has 32 MiB.
const maxProgram = 32 << 20

// sumOf is the checksum of what a decision is for: the config, and the programs
// that it has run.
func sumOf(cfg *config.Config) (string, error) {
	all := cfg.Sum
	for _, path := range programs(cfg) {
		data, err := readProgram(path)
		if err != nil {
			return "", err
		}
		all += sum(data)
	}
	if all == cfg.Sum {
		return all, nil
	}
	return sum([]byte(all)), nil
}

func readProgram(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe that nobody writes to is no program
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxProgram+1))
	if err == nil && len(data) > maxProgram {
		err = fmt.Errorf("%s is too long", path)
	}
	return data, err
}

func forgetTrust(file string) error {
	record, err := trustFile(file)
	if err != nil {
		return err
	}
	if err := os.Remove(record); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot take the decision back: %w", err)
	}
	return nil
}

// trustFile names the record by the file's real path, so that a directory
// cannot be trusted through a link and then be another one.
func trustFile(file string) (string, error) {
	dir, err := stateDir("trust")
	if err != nil {
		return "", err
	}
	abs, err := filepath.Abs(file)
	if err != nil {
		return "", fmt.Errorf("cannot find %s: %w", file, err)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	return filepath.Join(dir, sum([]byte(abs))+".json"), nil
}

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}
