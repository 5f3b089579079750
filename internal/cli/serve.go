package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/spf13/cobra"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/gateway"
	"github.com/agentcage/agentcage/internal/proxy/ca"
)

// serveDrain is how long requests under way may take after SIGTERM.
const serveDrain = 10 * time.Second

// settle is how long a config must have been quiet before it is read: an
// editor writes in several steps.
const settle = 100 * time.Millisecond

// listenFlags are common to the gateway's two halves.
type listenFlags struct {
	config string
	audit  string
	store  string
	ready  int
	// without are layers of the gateway's own confinement that this
	// machine does not have.
	without []string
}

func (f *listenFlags) register(c *cobra.Command) {
	c.Flags().StringVarP(&f.config, "config", "c", "", "config `FILE` (required)")
	c.Flags().StringVar(&f.audit, "audit", "-", "audit log `FILE`, - for standard error")
	c.Flags().StringVar(&f.store, "store", "", "`STORE` of the secrets: age (default), podman or systemd-creds")
	c.Flags().IntVar(&f.ready, "ready-fd", -1, "file descriptor `N` that gets \"ready\\n\" when everything listens")
	c.Flags().StringArrayVar(&f.without, "without", nil, "`LAYER` of the gateway's own confinement to go without (landlock, seccomp); repeatable")
	_ = c.MarkFlagRequired("config") // fails only for a flag that does not exist
}

// half is a running half of the gateway.
type half struct {
	file  string
	gw    *gateway.Gateway
	work  workers
	audit *audit.Writer

	secrets *vault
	dnsOnly bool
	reads   []string // directories of files that the config names

	without []cage.Layer
}

// start reads the config and builds the gateway; nothing listens yet. The
// authority is asked for only when the config is good: with a bad one nothing
// is made.
func (f *listenFlags) start(c *cobra.Command, dnsOnly bool, authority func() (*ca.Authority, error)) (*half, error) {
	cfg, err := loadConfig(f.config)
	if err != nil {
		return nil, err
	}
	warn(c, cfg)
	signer, err := authority()
	if err != nil {
		return nil, err
	}
	h := &half{file: f.config, without: layers(f.without), reads: directories(slices.Concat(cfg.Upstream.CAFiles, inspectorFiles(cfg))...)}
	if dnsOnly {
		cfg.Injection = config.Injection{} // it sends no requests
	}
	if h.secrets, err = openVault(c.Context(), cfg, cfg.Name, f.store); err != nil {
		return nil, err
	}
	var red redactor
	sink, err := audit.Open(f.audit, audit.Options{KeepAllowed: cfg.Logging.AllowedRequests, Redact: red.redact})
	if err != nil {
		return nil, err
	}
	h.audit, h.dnsOnly = sink, dnsOnly
	if !dnsOnly {
		if h.work, err = startWorkers(h.without, nil); err != nil {
			return nil, errors.Join(err, sink.Close())
		}
	}
	h.gw, err = gateway.New(gateway.Options{
		Config: cfg, Audit: sink, Name: cfg.Name, Authority: signer, HostNetwork: true, Getenv: os.LookupEnv, Log: logger(cfg.Logging.Level),
		Workers: h.work.starter(), DNSOnly: dnsOnly, Secret: h.secrets.secret, KeepSecret: h.secrets.keep,
	})
	if err != nil {
		return nil, errors.Join(err, h.work.Close(), sink.Close())
	}
	red.gw = h.gw
	return h, nil
}

func logger(level string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelInfo // "critical" is ours: nothing below error is left out by it
		if level == "critical" {
			l = slog.LevelError
		}
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l}))
}

// run says that it is ready, reloads on SIGHUP and on a changed file, and ends
// on SIGTERM or SIGINT when what was under way is finished.
func (h *half) run(ctx context.Context, ready int) error {
	defer h.audit.Close()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	changed, stop, err := watch(h.file)
	if err != nil {
		return errors.Join(err, h.shutdown())
	}
	defer stop()
	if !h.dnsOnly {
		commands, err := listenForCommands(h.secrets, h.gw)
		if err != nil {
			return errors.Join(err, h.shutdown())
		}
		defer commands.Close()
	}
	if err := errors.Join(h.confine(), sayReady(ready)); err != nil {
		return errors.Join(err, h.shutdown())
	}
	for {
		select {
		case <-ctx.Done():
			return h.shutdown()
		case <-changed:
			h.reload()
		case s := <-signals:
			if s != syscall.SIGHUP {
				return h.shutdown()
			}
			h.reload()
		}
	}
}

// confine leaves this process what a reload needs: the config and the
// directories of the files that it names.
func (h *half) confine() error {
	read := append(directories(h.file), h.reads...)
	return confineGateway(h.without, read, append(directories(h.audit.Path()), h.secrets.writes()...))
}

// reload tells the outcome on standard error and in the audit log. A config
// that cannot be used leaves the old policy in force.
func (h *half) reload() {
	cfg, err := config.Load(h.file)
	if err == nil && h.dnsOnly {
		cfg.Injection = config.Injection{}
	}
	if err == nil {
		err = keepPlaceholders(cfg, h.secrets.cage)
	}
	if err != nil {
		err = errors.Join(err, h.gw.ReloadFailed(err))
	} else {
		err = h.gw.Reload(cfg)
		h.audit.SetKeepAllowed(cfg.Logging.AllowedRequests)
	}
	if err != nil {
		report(os.Stderr, err)
		fmt.Fprintln(os.Stderr, "warning: the old policy stays in force")
		return
	}
	fmt.Fprintf(os.Stderr, "agentcage: reloaded %s\n", h.file)
}

func (h *half) shutdown() error {
	defer h.work.Close()
	ctx, cancel := context.WithTimeout(context.Background(), serveDrain)
	defer cancel()
	if err := h.gw.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// sayReady writes to the descriptor that whoever started us waits on.
func sayReady(fd int) error {
	if fd < 0 {
		return nil
	}
	f := os.NewFile(uintptr(fd), "ready")
	if f == nil {
		return fmt.Errorf("cannot use --ready-fd %d: it is no open file", fd)
	}
	defer f.Close()
	if _, err := f.WriteString("ready\n"); err != nil {
		return fmt.Errorf("cannot say that we are ready: %w", err)
	}
	return nil
}

// watch sends on the channel when the content of a file may have changed. It
// watches the directory, because most editors replace the file, and a
// Kubernetes or Podman mount replaces a link on the way to it.
func watch(file string) (<-chan struct{}, func(), error) {
	w, err := fsnotify.NewWatcher()
	if err == nil {
		err = w.Add(filepath.Dir(file))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot watch %s: %w", file, err)
	}
	before := stat(file)
	changed := make(chan struct{}, 1)
	timer := time.AfterFunc(time.Hour, func() {
		select {
		case changed <- struct{}{}:
		default: // a reload is already due
		}
	})
	timer.Stop()
	go func() {
		for range w.Events {
			if now := stat(file); now != before {
				before = now
				timer.Reset(settle)
			}
		}
	}()
	go func() {
		for range w.Errors { // an overflow: look again
			timer.Reset(settle)
		}
	}()
	return changed, func() { timer.Stop(); w.Close() }, nil
}

// identity is what changes when a file's content does.
type identity struct {
	size     int64
	modified time.Time
	inode    uint64
}

func stat(file string) identity {
	info, err := os.Stat(file)
	if err != nil {
		return identity{}
	}
	id := identity{size: info.Size(), modified: info.ModTime()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		id.inode = sys.Ino
	}
	return id
}

func listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", addr, err)
	}
	return l, nil
}
