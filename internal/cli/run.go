package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/agentcage/agentcage/internal/atomicfile"
	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/backend/process"
	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/gateway"
	"github.com/agentcage/agentcage/internal/inspect/budget"
)

// drainTime is how long responses that are under way may take to finish after
// the command has ended. Nobody is left to read them, so it is short.
const drainTime = 2 * time.Second

type runFlags struct {
	config         string
	allow          []string
	allowPrivate   []string
	env            []string
	secrets        []string
	store          string
	readWrite      []string
	readOnly       []string
	allowSensitive []string
	unguarded      []string
	without        []string
	name           string
	isolation      string
	audit          string
	summary        bool
	noSummary      bool
	quiet          bool
}

func newRun() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARG...]",
		Short: "Run a command in a cage",
		Long: `Run starts COMMAND in a cage made of Linux namespaces: no image, no daemon, no
root. The command sees the system's programs, a home of its own and the working
directory. Its network ends at the gateway, which lets through what --allow or
the config names and nothing else.

Without a config and without --allow nothing is reachable.

Exit codes: that of COMMAND, 128+N when signal N ended it, 126 and 127 when it
could not be executed or found, 2 when a flag or the config is wrong, 125 when
the cage could not be made.`,
		Example: `  agentcage run --allow api.anthropic.com -- claude
  agentcage run --allow github.com -- git clone https://github.com/OWNER/REPO
  agentcage run -c cage.yaml --env CI=1 -- make test`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &exitError{exitUsage, withHint(errors.New("cannot run: no command is given"),
					"agentcage run --allow HOST -- COMMAND [ARG...]")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return run(c, f, args) },
	}
	f.register(c)
	return c
}

func (f *runFlags) register(c *cobra.Command) {
	fs := c.Flags()
	fs.SetInterspersed(false) // COMMAND's flags are its own, with or without --
	fs.StringVarP(&f.config, "config", "c", "", "config `FILE` (default: cage.yaml in the working directory, if trusted)")
	fs.StringArrayVar(&f.allow, "allow", nil, "`DOMAIN` to allow with everything under it (=DOMAIN: exactly it; DOMAIN:PORT); repeatable")
	fs.StringArrayVar(&f.allowPrivate, "allow-private", nil, "like --allow, for a `DOMAIN` that may have private addresses; repeatable")
	fs.StringArrayVar(&f.env, "env", nil, "`K=V` for the command, or K to pass yours on; repeatable")
	fs.StringArrayVar(&f.secrets, "secret", nil, "`NAME` of a secret the command gets a placeholder for, NAME@HOST for a host that is not known by it, NAME@HOST=SOURCE for one from elsewhere than the store; repeatable")
	fs.StringVar(&f.store, "store", "", "`STORE` of the secrets: age (default), podman or systemd-creds")
	fs.StringArrayVar(&f.readWrite, "rw", nil, "`PATH` to show read-write; repeatable")
	fs.StringArrayVar(&f.readOnly, "ro", nil, "`PATH` to show read-only; repeatable")
	fs.StringArrayVar(&f.allowSensitive, "allow-sensitive", nil, "`PATH` that holds credentials and may be shown all the same; repeatable")
	fs.StringArrayVar(&f.unguarded, "unguard", nil, "`PATH` in the working directory that stays writable although this machine runs it later (such as .vscode); repeatable")
	fs.StringArrayVar(&f.without, "without", nil, "`LAYER` of confinement to go without when this machine does not have it; repeatable")
	fs.StringVar(&f.name, "name", "", "name of the cage (default: the config's, or the directory's)")
	fs.StringVar(&f.isolation, "isolation", "", "how the cage is made: process (default)")
	fs.StringVar(&f.audit, "audit", "", "audit log `FILE`, - for standard error (default: in the state directory)")
	fs.BoolVar(&f.summary, "summary", false, "print the summary even when there was no traffic")
	fs.BoolVar(&f.noSummary, "no-summary", false, "do not print the summary")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print nothing but errors")
	c.MarkFlagsMutuallyExclusive("summary", "no-summary")
}

func run(c *cobra.Command, f runFlags, args []string) error {
	cfg, err := f.load(c)
	if err != nil {
		return err
	}
	spec, err := f.spec(cfg, args)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	if f.audit == "" { // the backend covers the state directory
		if f.audit, err = defaultAudit(spec.Name); err != nil {
			return &exitError{exitNotRun, err}
		}
	} else if err := auditOutside(f.audit, spec); err != nil {
		return &exitError{exitUsage, err}
	}
	secrets, err := openVault(c.Context(), cfg, spec.Name, f.store)
	if err == nil {
		err = secrets.outside(spec)
	}
	if err != nil {
		return &exitError{exitNotRun, err}
	}
	spec.Env = append(placeholderEnv(cfg), spec.Env...)
	var red redactor
	writer, err := audit.Open(f.audit, audit.Options{KeepAllowed: cfg.Logging.AllowedRequests, Redact: red.redact})
	if err != nil {
		return &exitError{exitNotRun, err}
	}
	defer writer.Close()
	totals := &audit.Summary{Redact: red.redact}
	end, err := runCage(c.Context(), caged{cfg, &spec, audit.Multi(writer, totals), secrets, &red}, directories(f.audit)...)
	if !f.quiet && !f.noSummary {
		printSummary(os.Stderr, totals, f.summary, f.audit)
		printSent(os.Stderr, end.sent)
		printFindings(os.Stderr, end.findings)
	}
	return end.exit(err)
}

// auditOutside refuses an audit log that the agent could read, cut or forge:
// it lies in a tree that the cage is given.
func auditOutside(path string, spec cage.Spec) error {
	trees := append([]string{spec.Dir}, spec.ReadWrite...)
	trees = append(trees, spec.ReadOnly...)
	if spec.PersistentHome != "" {
		trees = append(trees, spec.PersistentHome)
	}
	if path != "-" && inside(path, trees) {
		return withHint(fmt.Errorf("cannot write the audit log to %s: the agent could reach it there", path),
			"name a file outside of the working directory and of what --rw and --ro show, or - for standard error")
	}
	return nil
}

// ending is how a cage ended.
type ending struct {
	status   cage.Status
	findings []process.Finding
	sent     []budget.Total
}

// exit turns the end of a command into ours. 126 and 127 come with the reason
// why the command did not start; an error without a code means that the cage
// could not be made.
func (e ending) exit(err error) error {
	code := e.status.Code
	if err != nil {
		code = cmp.Or(code, exitNotRun)
	}
	if code == 0 {
		return nil
	}
	return &exitError{code, err}
}

// printFindings names files that this machine runs without being asked, and
// that the agent made or changed where no guard could stand.
func printFindings(w io.Writer, findings []process.Finding) {
	if len(findings) == 0 {
		return
	}
	fmt.Fprintln(w, paint(yellow, "agentcage: look at these before you go on, because this machine may run them by itself"))
	for _, f := range findings {
		fmt.Fprintf(w, "  %s  %s\n", printable(f.Path), f.Why)
	}
}

// caged is everything that a run is made of.
type caged struct {
	cfg     *config.Config
	spec    *cage.Spec
	sink    audit.Sink
	secrets *vault
	red     *redactor // of sink
}

// runCage makes the gateway and the cage, runs the command to its end, and
// leaves nothing behind. From the command's start on, this process can write
// only below the cage's own trees, the state directory and the extra paths.
func runCage(ctx context.Context, r caged, extra ...string) (ending, error) {
	cfg, spec := r.cfg, r.spec
	workers, err := runWorkers(cfg, spec)
	if err != nil {
		return ending{}, err
	}
	defer workers.Close()
	gw, err := gateway.New(gateway.Options{
		Config: cfg, Audit: r.sink, Name: spec.Name, HostNetwork: true, IPv6: hasIPv6(), Getenv: os.LookupEnv, Workers: workers.starter(),
		Secret: r.secrets.secret, KeepSecret: r.secrets.keep,
	})
	if err != nil {
		return ending{}, err
	}
	defer shutdown(gw)
	r.red.gw = gw
	commands, err := listenForCommands(r.secrets, gw)
	if err != nil {
		return ending{}, err
	}
	defer commands.Close()
	spec.CA = gw.CACertificate()
	spec.Ports = gw.Ports()

	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)

	state, err := stateDir()
	if err != nil {
		return ending{}, err
	}
	attach := func(l cage.Listeners) error {
		writes := append([]string{state}, l.HostPaths...)
		return errors.Join(gw.Attach(l), confineGateway(spec.Without, nil, slices.Concat(writes, extra, r.secrets.writes())))
	}
	p, err := process.Backend{}.Start(ctx, *spec, attach)
	if err != nil {
		return ending{}, err
	}
	done := make(chan struct{})
	defer close(done)
	go forward(p, signals, done)
	status, err := p.Wait()
	end := ending{status: status, sent: gw.Totals()}
	if r, ok := p.(interface{ Findings() []process.Finding }); ok {
		end.findings = r.Findings()
	}
	return end, err
}

func forward(p cage.Process, signals <-chan os.Signal, done <-chan struct{}) {
	for {
		select {
		case s := <-signals:
			// The command may have ended in this very moment.
			_ = p.Signal(s.(syscall.Signal))
		case <-done:
			return
		}
	}
}

func shutdown(gw *gateway.Gateway) {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	// Connections that are still open are cut when the time is over,
	// which is what is wanted here.
	_ = gw.Shutdown(ctx)
}

// load finds the config and adds the flags to it.
func (f *runFlags) load(c *cobra.Command) (*config.Config, error) {
	cfg, err := f.file(c)
	if err != nil {
		return nil, err
	}
	if cfg.Isolation != "" && f.isolation == "" {
		f.isolation = cfg.Isolation
	}
	if f.isolation != "" && f.isolation != "process" {
		return nil, &exitError{exitUsage, withHint(
			fmt.Errorf("cannot run with isolation %q: this version has only process", f.isolation),
			"add --isolation process")}
	}
	for _, text := range f.secrets {
		if err := addSecret(cfg, text); err != nil {
			return nil, err
		}
	}
	for _, err := range []error{cfg.Allow(f.allow...), cfg.AllowPrivate(f.allowPrivate...)} {
		if err != nil {
			return nil, &exitError{exitUsage, err}
		}
	}
	return cfg, nil
}

func (f *runFlags) file(c *cobra.Command) (*config.Config, error) {
	if f.config != "" {
		cfg, err := loadConfig(f.config)
		if err != nil {
			return nil, err
		}
		// Naming the file is the decision. That it cannot be recorded
		// does not take it back.
		_ = recordTrust(cfg)
		return cfg, nil
	}
	cfg, err := projectConfig(os.Stdin, c.ErrOrStderr(), isTerminal(os.Stdin) && isTerminal(os.Stderr))
	if err != nil || cfg != nil {
		return cfg, err
	}
	return withoutFile(), nil
}

// withoutFile is the config of a run that has none. A person who types a host
// on the command line wants npm install to be slow rather than to fail, so a
// request over the rate is held instead of refused.
func withoutFile() *config.Config {
	cfg := config.Default()
	cfg.RateLimit = config.RateLimit{RequestsPerSecond: 50, Burst: 200, Wait: 30 * time.Second}
	return cfg
}

// spec turns flags and config into what the backend needs.
func (f *runFlags) spec(cfg *config.Config, args []string) (cage.Spec, error) {
	dir, err := os.Getwd()
	if err != nil {
		return cage.Spec{}, fmt.Errorf("cannot find the working directory: %w", err)
	}
	spec := cage.Spec{
		Name:    firstOf(f.name, cfg.Name, nameFor(dir)),
		Command: args,
		Dir:     dir,
		Limits: cage.Limits{
			MemoryBytes: cfg.Process.MemoryBytes,
			CPUs:        cfg.Process.CPUs,
			Processes:   cfg.Process.Processes,
			OpenFiles:   cfg.Process.OpenFiles,
		},
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}
	if !config.ValidName(spec.Name) {
		return spec, withHint(fmt.Errorf("cannot use name %q", spec.Name), "a name has lower-case letters, digits and hyphens, 63 at most")
	}
	if spec.Env, err = environment(cfg.Process.Env, f.env); err != nil {
		return spec, err
	}
	spec.Without = layers(f.without)
	spec.Unguarded = append(append(spec.Unguarded, cfg.Process.Unguarded...), f.unguarded...)
	return spec, errors.Join(
		absolute(&spec.ReadWrite, cfg.Process.ReadWrite, f.readWrite),
		absolute(&spec.ReadOnly, cfg.Process.ReadOnly, f.readOnly),
		absolute(&spec.AllowSensitive, cfg.Process.AllowSensitive, f.allowSensitive),
		protectConfig(&spec, cfg),
		persistHome(&spec, cfg),
	)
}

func layers(names []string) []cage.Layer {
	var out []cage.Layer
	for _, n := range names {
		out = append(out, cage.Layer(n))
	}
	return out
}

// protectConfig keeps the agent from writing the policy of its next run: the
// config, and the authorities and inspectors that it names.
func protectConfig(spec *cage.Spec, cfg *config.Config) error {
	if cfg.File == "" {
		return nil
	}
	var here []string
	for _, f := range slices.Concat([]string{cfg.File}, cfg.Upstream.CAFiles, inspectorFiles(cfg)) {
		if inside(f, append([]string{spec.Dir}, spec.ReadWrite...)) {
			here = append(here, f)
		}
	}
	return absolute(&spec.ReadOnly, here)
}

// persistHome finds the home directory that a cage keeps. It belongs to the
// config that made it: another repository's cage.yaml could give the same name,
// and would find what agents have left there, such as their tokens.
func persistHome(spec *cage.Spec, cfg *config.Config) error {
	if cfg.Process.Home != "persist" {
		return nil
	}
	homes, err := stateDir("homes")
	if err != nil {
		return err
	}
	owner, of := filepath.Join(homes, spec.Name+".of"), resolved(cfg.File)
	switch b, err := os.ReadFile(owner); {
	case errors.Is(err, fs.ErrNotExist):
		if err := atomicfile.Write(owner, []byte(of)); err != nil {
			return fmt.Errorf("cannot record whose home %s is: %w", spec.Name, err)
		}
	case err != nil:
		return fmt.Errorf("cannot tell whose home %s is: %w", spec.Name, err)
	case string(b) != of:
		return withHint(fmt.Errorf("cannot use the home of cage %s: it belongs to %s", spec.Name, b),
			"choose another name with --name, or remove "+owner+" if the config was moved")
	}
	spec.PersistentHome, err = stateDir("homes", spec.Name)
	return err
}

func absolute(to *[]string, lists ...[]string) error {
	for _, list := range lists {
		for _, p := range list {
			abs, err := filepath.Abs(p)
			if err != nil {
				return fmt.Errorf("cannot use path %s: %w", p, err)
			}
			*to = append(*to, abs)
		}
	}
	return nil
}

// environment adds the flags to the config's variables. Nothing comes from
// our own environment that was not named.
func environment(fromConfig map[string]string, flags []string) ([]string, error) {
	var env []string
	for _, k := range sortedKeys(fromConfig) {
		env = append(env, k+"="+fromConfig[k])
	}
	for _, kv := range flags {
		k, v, given := strings.Cut(kv, "=")
		if !given {
			var set bool
			if v, set = os.LookupEnv(k); !set {
				return nil, withHint(fmt.Errorf("cannot pass on %s: it is not set here", k), "write --env "+k+"=VALUE")
			}
		}
		if k == "" || strings.ContainsRune(k+v, 0) {
			return nil, fmt.Errorf("cannot use --env %q", kv)
		}
		env = append(env, k+"="+v)
	}
	return env, nil
}

// defaultAudit is where a cage's log goes when nobody said: without a log there
// is no cage.
func defaultAudit(name string) (string, error) {
	dir, err := stateDir("cages", name)
	return filepath.Join(dir, "audit.jsonl"), err
}

// printSummary says what left the cage and what did not.
func printSummary(w io.Writer, totals *audit.Summary, always bool, log string) {
	rows := totals.Snapshot()
	if len(rows) == 0 {
		if always {
			fmt.Fprintln(w, "agentcage: nothing tried to leave the cage")
		}
		return
	}
	counts := map[string]int{}
	for _, r := range rows {
		counts[r.Decision] += r.Count
	}
	fmt.Fprintf(w, "\nagentcage: %s, %s, %s",
		paint(green, fmt.Sprintf("%d allowed", counts["allowed"])),
		paint(yellow, fmt.Sprintf("%d flagged", counts["flagged"])),
		paint(red, fmt.Sprintf("%d blocked", counts["blocked"])))
	if n := counts[audit.Failed]; n > 0 {
		fmt.Fprintf(w, ", %s", paint(yellow, fmt.Sprintf("%d failed", n)))
	}
	fmt.Fprintln(w)
	for _, r := range rows {
		fmt.Fprintf(w, "  %6d %s %s", r.Count, paint(colourOf(r.Decision), fmt.Sprintf("%-8s", r.Decision)), printable(r.Host))
		if r.Reason != "" {
			fmt.Fprintf(w, "  %s", printable(r.Reason))
		}
		fmt.Fprintln(w)
	}
	hintPrivate(w, rows)
	if counts["blocked"]+counts["flagged"] > 0 && log != "" && log != "-" {
		fmt.Fprintf(w, "  the audit log is %s\n", printable(log))
	}
}

// printSent says how much left, and where most of it went.
func printSent(w io.Writer, sent []budget.Total) {
	if len(sent) == 0 {
		return
	}
	var all budget.Total
	for _, t := range sent {
		all.Bytes += t.Bytes
		all.Requests += t.Requests
	}
	most := cmp.Or(sent[0].Host.String(), audit.Others)
	fmt.Fprintf(w, "  %s left in %d requests, most of it to %s\n", size(all.Bytes), all.Requests, printable(most))
}

// size writes a number of bytes as a person reads it.
func size(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	f, unit := float64(n)/(1<<10), 0
	for f >= 1<<10 && unit < 3 {
		f, unit = f/(1<<10), unit+1
	}
	return fmt.Sprintf("%.1f %s", f, []string{"KiB", "MiB", "GiB", "TiB"}[unit])
}

// hintPrivate says what to do about the one refusal that a person who meant the
// host cannot guess the flag for.
func hintPrivate(w io.Writer, rows []audit.Row) {
	for _, r := range rows {
		if strings.Contains(r.Reason, "address is not global") {
			fmt.Fprintf(w, "hint: --allow-private %s, or private: true in the config, allows its private address\n", printable(r.Host))
			return
		}
	}
}

func colourOf(decision string) string {
	switch decision {
	case "allowed":
		return green
	case "flagged", audit.Failed:
		return yellow
	default:
		return red
	}
}

func firstOf(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

// nameFor makes a cage's name out of its directory's.
func nameFor(dir string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		default:
			return '-'
		}
	}, filepath.Base(dir))
	name = strings.Trim(name, "-")
	if len(name) > 63 {
		name = strings.Trim(name[:63], "-")
	}
	return firstOf(name, "cage")
}

// hasIPv6 reports whether this kernel speaks IPv6, in cages as outside.
func hasIPv6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
}
