// Package dial connects to servers: it resolves a name once, vets every
// answer, and connects to an address that was vetted.
//
// No byte leaves before the vet, and the name is never resolved a second time
// between the vet and the connection, so a server that answers differently
// from one query to the next (DNS rebinding) gains nothing.
package dial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/agentcage/agentcage/internal/hostname"
)

const (
	defaultTimeout = 15 * time.Second
	// attemptDelay is the Connection Attempt Delay of RFC 8305 section 5.
	attemptDelay = 250 * time.Millisecond
	// maxAnswers limits the addresses of one name that are tried.
	maxAnswers = 16
)

// Resolver answers with the addresses of a name. An error or an empty answer
// is a name that cannot be dialled; the error says which name it was.
type Resolver interface {
	Lookup(ctx context.Context, name hostname.Name) ([]netip.Addr, error)
}

// Dialer opens connections to servers. Its methods may be called
// concurrently; its fields must not change once it is in use. The zero Dialer
// refuses every name, for want of a Resolver, and every address that is not
// global.
type Dialer struct {
	Resolver Resolver

	// Hosts are fixed addresses, as in /etc/hosts. They are vetted as well.
	Hosts map[hostname.Name]netip.Addr

	// AllowPrivate reports whether host may be at addr although addr is not
	// global, or although host is an alias of the host itself. Addresses that
	// name no single server (unspecified, multicast, broadcast) are refused
	// whatever it says. Nil allows none.
	AllowPrivate func(host hostname.Name, addr netip.Addr) bool

	// Self reports whether addr is a listener of our own. Such an address is
	// refused even when AllowPrivate grants it: a loop inspects nothing.
	Self func(addr netip.AddrPort) bool

	// Proxy is the host:port of an upstream HTTP proxy, with or without
	// "http://" before it, spoken to with CONNECT; or empty. The operator
	// configured it, so it is not vetted and the system resolves its name.
	Proxy string

	// Timeout limits a whole Dial, the resolution included. 0 is 15 s.
	Timeout time.Duration

	// Control is called for every socket before it connects; see
	// [net.Dialer.Control].
	Control func(network, address string, c syscall.RawConn) error
}

// RefusedError says that a destination is forbidden. No packet was sent to it.
type RefusedError struct {
	Host   hostname.Name
	Addr   netip.Addr // the forbidden answer; invalid when the name itself is
	Reason string
}

func (e *RefusedError) Error() string {
	if !e.Addr.IsValid() || e.Host.IsIP() {
		return fmt.Sprintf("cannot connect to %s: %s", e.Host, e.Reason)
	}
	return fmt.Sprintf("cannot connect to %s (%s): %s", e.Host, e.Addr, e.Reason)
}

// Dial connects to host over TCP. A forbidden destination is a
// [*RefusedError]; one forbidden answer among several refuses the whole name,
// since whoever put it there chooses the others as well.
//
// With an upstream proxy, an address is vetted, and so is a name that resolves
// here; a name that does not resolve here is left to the proxy, because hosts
// behind such a proxy often see no public DNS. What that proxy then connects
// to is its own decision.
func (d *Dialer) Dial(ctx context.Context, host hostname.Name, port uint16) (net.Conn, error) {
	if host.IsZero() || port == 0 {
		return nil, errors.New("cannot connect: there is no host or port")
	}
	timeout := d.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	addrs, err := d.Vet(ctx, host, port)
	var refused *RefusedError
	switch {
	case d.Proxy != "" && (err == nil || !errors.As(err, &refused) && ctx.Err() == nil):
		return d.dialProxy(ctx, host, port)
	case err != nil:
		return nil, err
	}
	return d.race(ctx, addrs, port)
}

// DialContext is Dial in the form that http.Transport wants.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if !strings.HasPrefix(network, "tcp") {
		return nil, fmt.Errorf("cannot connect over %q: only TCP leaves", network)
	}
	host, port, err := hostname.ParseAuthority(address)
	if err != nil {
		return nil, err
	}
	return d.Dial(ctx, host, port)
}

// Vet resolves host and returns the addresses that Dial would connect to.
func (d *Dialer) Vet(ctx context.Context, host hostname.Name, port uint16) ([]netip.Addr, error) {
	addrs, err := d.resolve(ctx, host)
	if err != nil {
		if isAlias(host) {
			return nil, &RefusedError{Host: host, Reason: "the name stands for the host itself or its metadata service"}
		}
		return nil, err
	}
	for i, a := range addrs {
		addrs[i] = a.Unmap().WithZone("")
		if err := d.vetOne(host, addrs[i], port); err != nil {
			return nil, err
		}
	}
	return addrs, nil
}

func (d *Dialer) resolve(ctx context.Context, host hostname.Name) ([]netip.Addr, error) {
	if host.IsIP() {
		return []netip.Addr{host.Addr()}, nil
	}
	if a, ok := d.Hosts[host]; ok {
		return []netip.Addr{a}, nil
	}
	if d.Resolver == nil {
		return nil, fmt.Errorf("cannot resolve %s: there is no resolver", host)
	}
	addrs, err := d.Resolver.Lookup(ctx, host)
	switch {
	case err != nil:
		return nil, err
	case len(addrs) == 0:
		return nil, fmt.Errorf("cannot resolve %s: it has no address", host)
	}
	// All answers are vetted, also those that are too many to be tried.
	return append([]netip.Addr(nil), addrs...), nil
}

func (d *Dialer) vetOne(host hostname.Name, a netip.Addr, port uint16) error {
	class := Classify(a)
	one := class != Invalid && class != Unspecified && class != Multicast && class != Broadcast
	private := one && d.AllowPrivate != nil && d.AllowPrivate(host, a)
	switch {
	case d.Self != nil && d.Self(netip.AddrPortFrom(a, port)):
		return &RefusedError{host, a, "the address is the gateway's own"}
	case private:
		return nil
	case isAlias(host):
		return &RefusedError{host, a, "the name stands for the host itself or its metadata service"}
	case class != Global:
		return &RefusedError{host, a, "the address is not global: " + class.String()}
	}
	return nil
}

// aliases are names by which container runtimes, virtual machines and clouds
// reach the host or its metadata service. They are refused whatever they
// resolve to, unless AllowPrivate grants them.
var aliases = []hostname.Name{
	hostname.MustParse("localhost"), // with everything under it: RFC 6761 section 6.3
	hostname.MustParse("localhost.localdomain"),
	hostname.MustParse("localhost6"),
	hostname.MustParse("localhost6.localdomain6"),
	hostname.MustParse("ip6-localhost"),
	hostname.MustParse("ip6-loopback"),
	hostname.MustParse("docker.internal"), // host., gateway., kubernetes.
	hostname.MustParse("containers.internal"),
	hostname.MustParse("lima.internal"),
	hostname.MustParse("orb.internal"),
	hostname.MustParse("rancher-desktop.internal"),
	hostname.MustParse("minikube.internal"),
	hostname.MustParse("google.internal"), // metadata.google.internal
	hostname.MustParse("metadata"),
	hostname.MustParse("metadata.goog"),
	hostname.MustParse("instance-data"),
	hostname.MustParse("instance-data.ec2.internal"),
}

func isAlias(host hostname.Name) bool {
	for _, zone := range aliases {
		if host.Within(zone) {
			return true
		}
	}
	return false
}

// race connects to the first address that answers (RFC 8305, with a fixed
// order of families).
func (d *Dialer) race(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	addrs = interleave(addrs)
	if len(addrs) > maxAnswers {
		addrs = addrs[:maxAnswers]
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	start := func(a netip.Addr) {
		conn, err := d.connect(ctx, netip.AddrPortFrom(a, port).String())
		select {
		case results <- result{conn, err}:
		case <-ctx.Done():
			if conn != nil {
				_ = conn.Close()
			}
		}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var firstErr error
	for next, running := 0, 0; next < len(addrs) || running > 0; {
		var tick <-chan time.Time
		if next < len(addrs) {
			tick = timer.C
		}
		select {
		case <-tick:
			go start(addrs[next])
			next, running = next+1, running+1
			timer.Reset(attemptDelay)
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			if firstErr == nil {
				firstErr = r.err
			}
			running--
			timer.Reset(0)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, firstErr
}

func (d *Dialer) connect(ctx context.Context, address string) (net.Conn, error) {
	// The address is a literal: the standard dialer has nothing to resolve.
	nd := net.Dialer{Control: d.Control, KeepAlive: 30 * time.Second}
	return nd.DialContext(ctx, "tcp", address)
}

// interleave alternates the families, IPv6 first, and drops duplicates (RFC
// 8305 section 4).
func interleave(addrs []netip.Addr) []netip.Addr {
	var v6, v4 []netip.Addr
	seen := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		switch {
		case seen[a]:
		case a.Is6():
			v6 = append(v6, a)
		default:
			v4 = append(v4, a)
		}
		seen[a] = true
	}
	out := make([]netip.Addr, 0, len(addrs))
	for i := 0; i < max(len(v6), len(v4)); i++ {
		if i < len(v6) {
			out = append(out, v6[i])
		}
		if i < len(v4) {
			out = append(out, v4[i])
		}
	}
	return out
}
