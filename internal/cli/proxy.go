package cli

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/agentcage/agentcage/internal/proxy/ca"
)

type proxyFlags struct {
	listenFlags
	listen          string
	transparentHTTP string
	transparentTLS  string
	caDir           string
	secretsDir      string
}

func newProxy() *cobra.Command {
	var f proxyFlags
	c := &cobra.Command{
		Use:   "proxy -c FILE",
		Short: "Run the gateway's proxy in the foreground",
		Long: `Proxy runs the half of the gateway that forwards HTTP: an explicit proxy and, when
asked for, listeners for intercepted connections. Clients must trust ca.pem in
the directory of --ca-dir.

SIGHUP and a changed config file reload; a config that cannot be used leaves the
old policy in force. SIGTERM stops when the requests under way are finished.

Whoever can connect can use what the config allows. Listen on loopback or on an
address that only the cage can reach.`,
		Args: exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	f.register(c)
	c.Flags().StringVar(&f.listen, "listen", "127.0.0.1:8080", "`ADDR` of the explicit proxy")
	c.Flags().StringVar(&f.transparentHTTP, "transparent-http", "", "`ADDR` for intercepted HTTP connections")
	c.Flags().StringVar(&f.transparentTLS, "transparent-tls", "", "`ADDR` for intercepted TLS connections")
	c.Flags().StringVar(&f.caDir, "ca-dir", "", "`DIR` of ca.pem and ca-key.pem, made when missing (required)")
	c.Flags().StringVar(&f.secretsDir, "secrets-dir", "", "`DIR` with one file a secret")
	_ = c.MarkFlagRequired("ca-dir") // fails only for a flag that does not exist
	return c
}

func (f *proxyFlags) run(c *cobra.Command) error {
	if err := f.check(); err != nil {
		return &exitError{exitUsage, err}
	}
	h, err := f.start(c, false, func() (*ca.Authority, error) { return ca.Load(f.caDir) })
	if err != nil {
		return err
	}
	if err := f.open(h); err != nil {
		return errors.Join(err, h.shutdown())
	}
	return h.run(c.Context(), f.ready)
}

// check refuses what would be unsafe or would silently do nothing.
func (f *proxyFlags) check() error {
	for _, addr := range []string{f.listen, f.transparentHTTP, f.transparentTLS} {
		if err := refuseWildcard(addr); err != nil {
			return err
		}
	}
	if f.secretsDir == "" {
		return nil
	}
	entries, err := os.ReadDir(f.secretsDir)
	if err != nil {
		return fmt.Errorf("cannot use --secrets-dir: %w", err)
	}
	if len(entries) > 0 {
		return errors.New("cannot use --secrets-dir: this version has no code to inject secrets yet")
	}
	return nil
}

// refuseWildcard keeps the gateway from serving whoever can reach the host:
// its clients are told apart by nothing but where they connect from.
func refuseWildcard(addr string) error {
	if addr == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("cannot listen on %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		return withHint(fmt.Errorf("cannot listen on %s: every address of this machine could use the cage's permissions", addr),
			"name the address that the cage connects to, such as 127.0.0.1:8080")
	}
	return nil
}

// open binds every address before any of them is served.
func (f *proxyFlags) open(h *half) error {
	var bound []func()
	var opened []net.Listener
	for _, want := range []struct {
		what  string
		addr  string
		serve func(net.Listener)
	}{
		{"proxy", f.listen, h.gw.ServeProxy},
		{"transparent HTTP", f.transparentHTTP, func(l net.Listener) { h.gw.ServeTransparent(l, 80) }},
		{"transparent TLS", f.transparentTLS, func(l net.Listener) { h.gw.ServeTransparent(l, 443) }},
	} {
		if want.addr == "" {
			continue
		}
		l, err := listen(want.addr)
		if err != nil {
			for _, o := range opened {
				o.Close()
			}
			return err
		}
		opened = append(opened, l)
		bound = append(bound, func() { want.serve(l) })
		fmt.Fprintf(os.Stderr, "agentcage: %s on %s\n", want.what, l.Addr())
	}
	for _, serve := range bound {
		serve()
	}
	return nil
}
