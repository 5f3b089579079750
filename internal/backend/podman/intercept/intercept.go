//go:build linux

// Package intercept makes every address local to the gateway on the side of
// the cage, and on that side only: a connection of the agent's to whatever
// address is accepted by the gateway's listeners, whose accepted sockets have
// that address as their own, and where nothing listens the kernel refuses at
// once. It needs CAP_NET_ADMIN in the gateway's network namespace, and neither
// a packet filter nor a module (rtnetlink(7)).
package intercept

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The rules, by their priority (ip-rule(8)). The kernel's own rule 0 sends
// every packet through the table "local"; it has to make room, so that this
// table can say "everything" and be asked for the cage's packets only. That it
// is this table matters: the kernel looks there, and nowhere else, whether it
// may answer from an address.
const (
	prioCage = 1
	prioOwn  = 2
	// tableOwn has what is really local.
	tableOwn = 100
)

// Start takes over what arrives at the interface that has the address own. The
// interface also gets the addresses hops, which are those of the next hop of
// the cage's routes. Interfaces are found by address: their names change from
// start to start.
func Start(own netip.Addr, hops ...netip.Addr) error {
	cage, err := interfaceOf(own)
	if err != nil {
		return err
	}
	n, err := open()
	if err != nil {
		return err
	}
	defer unix.Close(n.fd)
	for _, hop := range hops {
		if err := n.addAddress(cage, hop); err != nil {
			return fmt.Errorf("cannot take the address %v: %w", hop, err)
		}
	}
	if err := n.copyOwn(); err != nil {
		return fmt.Errorf("cannot keep the gateway's own addresses: %w", err)
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := n.takeOver(family, cage.Name); err != nil {
			return fmt.Errorf("cannot make every address local: %w", err)
		}
	}
	return nil
}

func interfaceOf(own netip.Addr) (*net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for i := range all {
		addrs, err := all[i].Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == own {
				return &all[i], nil
			}
		}
	}
	return nil, fmt.Errorf("no interface has the address %v", own)
}

// netlink is a socket on which one request is answered after the other.
type netlink struct{ fd int }

func open() (*netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("cannot talk to the kernel's routing: %w", err)
	}
	return &netlink{fd}, nil
}

// request sends a message and waits until the kernel has acted on it. What is
// there already is no error: the gateway may have been started before.
func (n *netlink) request(kind, flags uint16, body []byte) error {
	b := make([]byte, 0, 16+len(body))
	b = binary.NativeEndian.AppendUint32(b, uint32(16+len(body))) //nolint:gosec // a few dozen bytes
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // sequence and port
	if err := unix.Sendto(n.fd, append(b, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	m, _, err := unix.Recvfrom(n.fd, answer, 0)
	if err != nil {
		return err
	}
	if m < 20 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return errors.New("the kernel's answer is not an acknowledgement")
	}
	if code := int32(binary.NativeEndian.Uint32(answer[16:])); code != 0 && unix.Errno(-code) != unix.EEXIST { //nolint:gosec // an errno
		return unix.Errno(-code)
	}
	return nil
}

const make1 = unix.NLM_F_CREATE | unix.NLM_F_EXCL

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value))) //nolint:gosec // an address or a name
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&3)...)
}

func number(v int) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(v)) } //nolint:gosec // an index or a table

func (n *netlink) addAddress(at *net.Interface, a netip.Addr) error {
	b := []byte{family(a), byte(a.BitLen()), unix.IFA_F_NODAD, 0} //nolint:gosec // 32 or 128
	b = append(b, number(at.Index)...)
	b = attribute(b, unix.IFA_LOCAL, a.AsSlice())
	b = attribute(b, unix.IFA_ADDRESS, a.AsSlice())
	return n.request(unix.RTM_NEWADDR, make1, b)
}

// route adds a route of a kind to a table.
func (n *netlink) route(kind byte, to netip.Prefix, table byte, index int, flags uint16) error {
	scope := byte(unix.RT_SCOPE_HOST)
	if kind == unix.RTN_MULTICAST {
		scope = unix.RT_SCOPE_UNIVERSE
	}
	b := []byte{family(to.Addr()), byte(to.Bits()), 0, 0, table, unix.RTPROT_STATIC, scope, kind, 0, 0, 0, 0} //nolint:gosec // at most 128
	if to.Bits() > 0 {
		b = attribute(b, unix.RTA_DST, to.Masked().Addr().AsSlice())
	}
	b = attribute(b, unix.RTA_OIF, number(index))
	return n.request(unix.RTM_NEWROUTE, flags, b)
}

// copyOwn writes down what is local now, where only the cage's packets are not
// asked for it. The addresses of a container do not change while it runs.
func (n *netlink) copyOwn() error {
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err != nil {
				return err
			}
			if !p.Addr().Is4() || !p.Addr().IsLoopback() { // of 127.0.0.0/8, all
				p = netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
			}
			if err := n.route(unix.RTN_LOCAL, p, tableOwn, i.Index, make1); err != nil {
				return err
			}
		}
		if i.Flags&net.FlagMulticast != 0 { // neighbours are found by it in IPv6
			if err := n.route(unix.RTN_MULTICAST, netip.MustParsePrefix("ff00::/8"), tableOwn, i.Index, unix.NLM_F_CREATE|unix.NLM_F_APPEND); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *netlink) takeOver(family byte, cage string) error {
	fromCage := attribute(rule(family, unix.RT_TABLE_LOCAL, prioCage), unix.FRA_IIFNAME, append([]byte(cage), 0))
	if err := n.request(unix.RTM_NEWRULE, make1, fromCage); err != nil {
		return err
	}
	if err := n.request(unix.RTM_NEWRULE, make1, rule(family, tableOwn, prioOwn)); err != nil {
		return err
	}
	if err := n.request(unix.RTM_DELRULE, 0, rule(family, unix.RT_TABLE_LOCAL, 0)); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	everything := netip.MustParsePrefix("0.0.0.0/0")
	if family == unix.AF_INET6 {
		everything = netip.MustParsePrefix("::/0")
	}
	const loopback = 1 // LOOPBACK_IFINDEX of the kernel
	return n.route(unix.RTN_LOCAL, everything, unix.RT_TABLE_LOCAL, loopback, make1)
}

func rule(family, table byte, priority int) []byte {
	b := []byte{family, 0, 0, 0, table, 0, 0, unix.FR_ACT_TO_TBL, 0, 0, 0, 0}
	return attribute(b, unix.FRA_PRIORITY, number(priority))
}
