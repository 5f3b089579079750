package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ProxyPort is where the explicit proxy listens inside the cage, on 127.0.0.1.
const ProxyPort = 3128

const dnsPort = 53

// network is what init makes in the cage's network namespace and hands out.
type network struct {
	fds   []int
	roles []fdRole
}

func (n *network) add(fd int, role fdRole) {
	n.fds = append(n.fds, fd)
	n.roles = append(n.roles, role)
}

// openSockets opens the only sockets that answer in a namespace in which every
// address is local.
func openSockets(ports []uint16, v6 bool) (*network, error) {
	n := &network{}
	if err := n.listen(ports, v6); err != nil {
		closeAll(n.fds)
		return nil, err
	}
	// Without it refused connections are refused all the same; they are
	// only not seen.
	if fd, err := packetSocket(); err == nil {
		n.add(fd, rolePackets)
	}
	return n, nil
}

// everythingLocal brings lo up and makes every IPv4 and, where the kernel has
// it, every IPv6 address local to it (ip-route(8), type local).
func everythingLocal() (v6 bool, err error) {
	if err := loopbackUp(); err != nil {
		return false, fmt.Errorf("cannot bring up the cage's loopback device: %w", err)
	}
	if err := localRoute(unix.AF_INET); err != nil {
		return false, fmt.Errorf("cannot make IPv4 addresses local to the cage: %w", err)
	}
	if !haveIPv6() {
		return false, nil
	}
	if err := localRoute(unix.AF_INET6); err != nil {
		return false, fmt.Errorf("cannot make IPv6 addresses local to the cage: %w", err)
	}
	return true, nil
}

// haveIPv6 tells whether this kernel speaks IPv6 at all. Where it does not,
// there is nothing to reach and nothing to close.
func haveIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
	return err == nil && strings.TrimSpace(string(b)) == "0"
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// localRoute adds "local default dev lo" to the table local, by one
// RTM_NEWROUTE request (rtnetlink(7)).
func localRoute(family byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, newRoute(family), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return err
	}
	return netlinkAck(buf[:n])
}

// loopbackIndex is LOOPBACK_IFINDEX of the kernel: lo is the first device of
// every network namespace.
const loopbackIndex = 1

func newRoute(family byte) []byte {
	b := make([]byte, 0, 36)
	b = binary.NativeEndian.AppendUint32(b, 36)
	b = binary.NativeEndian.AppendUint16(b, unix.RTM_NEWROUTE)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	b = binary.NativeEndian.AppendUint32(b, 1) // sequence
	b = binary.NativeEndian.AppendUint32(b, 0) // port, filled in by the kernel
	b = append(b, family, 0, 0, 0, unix.RT_TABLE_LOCAL, unix.RTPROT_BOOT, unix.RT_SCOPE_HOST, unix.RTN_LOCAL)
	b = binary.NativeEndian.AppendUint32(b, 0) // flags
	b = binary.NativeEndian.AppendUint16(b, 8)
	b = binary.NativeEndian.AppendUint16(b, unix.RTA_OIF)
	return binary.NativeEndian.AppendUint32(b, loopbackIndex)
}

func netlinkAck(b []byte) error {
	if len(b) < 20 || binary.NativeEndian.Uint16(b[4:]) != unix.NLMSG_ERROR {
		return errors.New("the kernel's answer is not an acknowledgement")
	}
	if no := int32(binary.NativeEndian.Uint32(b[16:])); no != 0 {
		return unix.Errno(-no)
	}
	return nil
}

// listen opens the listeners. Each family has sockets of its own, so that an
// accepted connection's address is in the form that the agent used.
func (n *network) listen(ports []uint16, v6 bool) error {
	families := []int{unix.AF_INET}
	if v6 {
		families = append(families, unix.AF_INET6)
	}
	shared := slices.Contains(ports, ProxyPort)
	proxy, err := tcpListener(&unix.SockaddrInet4{Port: ProxyPort, Addr: [4]byte{127, 0, 0, 1}}, shared)
	if err != nil {
		return fmt.Errorf("cannot listen for the cage's proxy: %w", err)
	}
	n.add(proxy, roleProxy)
	for _, family := range families {
		if err := n.listenFamily(family, ports, shared); err != nil {
			return err
		}
	}
	return nil
}

func (n *network) listenFamily(family int, ports []uint16, shared bool) error {
	udp, err := udpSocket(wildcard(family, dnsPort))
	if err != nil {
		return fmt.Errorf("cannot listen for the cage's DNS: %w", err)
	}
	n.add(udp, roleDNS)
	stream, err := tcpListener(wildcard(family, dnsPort), false)
	if err != nil {
		return fmt.Errorf("cannot listen for the cage's DNS: %w", err)
	}
	n.add(stream, roleDNSStream)
	for _, port := range slices.Compact(slices.Sorted(slices.Values(ports))) {
		if port == dnsPort || port == 0 {
			continue
		}
		fd, err := tcpListener(wildcard(family, port), shared && port == ProxyPort)
		if err != nil {
			return fmt.Errorf("cannot listen on port %d of the cage: %w", port, err)
		}
		n.add(fd, roleTCP)
	}
	return nil
}

func wildcard(family int, port uint16) unix.Sockaddr {
	if family == unix.AF_INET6 {
		return &unix.SockaddrInet6{Port: int(port)}
	}
	return &unix.SockaddrInet4{Port: int(port)}
}

func familyOf(sa unix.Sockaddr) int {
	if _, ok := sa.(*unix.SockaddrInet6); ok {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// boundSocket opens a non-blocking socket, for the Go runtime that gets it.
func boundSocket(sa unix.Sockaddr, kind int, options ...[2]int) (int, error) {
	family := familyOf(sa)
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if family == unix.AF_INET6 {
		options = append(options, [2]int{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY})
	}
	for _, o := range options {
		if err = unix.SetsockoptInt(fd, o[0], o[1], 1); err != nil {
			break
		}
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// tcpListener listens on sa. shared lets the proxy's own address and the
// wildcard exist on one port; the kernel prefers the more specific of the two.
func tcpListener(sa unix.Sockaddr, shared bool) (int, error) {
	var options [][2]int
	if shared {
		options = append(options, [2]int{unix.SOL_SOCKET, unix.SO_REUSEPORT})
	}
	fd, err := boundSocket(sa, unix.SOCK_STREAM, options...)
	if err != nil {
		return -1, err
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// udpSocket binds sa so that a datagram tells the address it was sent to, and
// an answer may come from that address (ip(7) IP_PKTINFO, ipv6(7)
// IPV6_RECVPKTINFO and IPV6_FREEBIND).
func udpSocket(sa unix.Sockaddr) (int, error) {
	if familyOf(sa) == unix.AF_INET6 {
		return boundSocket(sa, unix.SOCK_DGRAM,
			[2]int{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO},
			[2]int{unix.IPPROTO_IPV6, unix.IPV6_FREEBIND})
	}
	return boundSocket(sa, unix.SOCK_DGRAM, [2]int{unix.IPPROTO_IP, unix.IP_PKTINFO})
}

// packetSocket sees what the cage's network refuses, and nothing else: a
// classic BPF program drops every other packet in the kernel.
func packetSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err := attachFilter(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	// Protocol 0 above receives nothing: the filter is in place before the
	// first packet can be queued.
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: loopbackIndex}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func attachFilter(fd int) error {
	raw, err := bpf.Assemble(refusalFilter())
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog)
}

// packetSnap is how much of a packet is kept: the longest IPv4 header, the
// ICMP header and the datagram it quotes with its ports.
const packetSnap = 160

// Values of protocol fields that the filter and its reader share.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58

	flagsRstAck = 0x14

	icmpUnreachable, icmpPort     = 3, 3
	icmpEcho                      = 8
	icmpv6Unreachable, icmpv6Port = 1, 4
	icmpv6Echo                    = 128
)

// refusalFilter accepts, of what comes in: TCP segments with just RST and ACK
// and sequence number 0, which is how the kernel answers a SYN to a port
// where nothing listens (RFC 9293 section 3.10.7.1), ICMP port unreachable,
// and echo requests.
func refusalFilter() []bpf.Instruction {
	const (
		accept = 100 // labels, replaced by distances below
		drop   = 101
		ipv6   = 102
		icmp4  = 103
		icmp6  = 104
	)
	const outgoing = unix.PACKET_OUTGOING
	prog := []any{
		bpf.LoadExtension{Num: bpf.ExtType},
		jump{bpf.JumpEqual, outgoing, drop, -1},
		bpf.LoadExtension{Num: bpf.ExtProto},
		jump{bpf.JumpEqual, unix.ETH_P_IPV6, ipv6, -1},
		jump{bpf.JumpEqual, unix.ETH_P_IP, -1, drop},
		bpf.LoadMemShift{Off: 0},
		bpf.LoadAbsolute{Off: 9, Size: 1},
		jump{bpf.JumpEqual, protoICMP, icmp4, -1},
		jump{bpf.JumpEqual, protoTCP, -1, drop},
		bpf.LoadIndirect{Off: 13, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x3f},
		jump{bpf.JumpEqual, flagsRstAck, -1, drop},
		bpf.LoadIndirect{Off: 4, Size: 4},
		jump{bpf.JumpEqual, 0, accept, drop},
		label(icmp4),
		bpf.LoadIndirect{Off: 0, Size: 2},
		jump{bpf.JumpEqual, icmpUnreachable<<8 | icmpPort, accept, -1},
		jump{bpf.JumpEqual, icmpEcho << 8, accept, drop},
		label(ipv6),
		bpf.LoadAbsolute{Off: 6, Size: 1},
		jump{bpf.JumpEqual, protoICMPv6, icmp6, -1},
		jump{bpf.JumpEqual, protoTCP, -1, drop},
		bpf.LoadAbsolute{Off: 53, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x3f},
		jump{bpf.JumpEqual, flagsRstAck, -1, drop},
		bpf.LoadAbsolute{Off: 44, Size: 4},
		jump{bpf.JumpEqual, 0, accept, drop},
		label(icmp6),
		bpf.LoadAbsolute{Off: 40, Size: 2},
		jump{bpf.JumpEqual, icmpv6Unreachable<<8 | icmpv6Port, accept, -1},
		jump{bpf.JumpEqual, icmpv6Echo << 8, accept, drop},
		label(accept),
		bpf.RetConstant{Val: packetSnap},
		label(drop),
		bpf.RetConstant{Val: 0},
	}
	return link(prog)
}

// jump is a conditional jump to labels; -1 goes on with the next instruction.
type jump struct {
	cond bpf.JumpTest
	val  uint32
	yes  int
	no   int
}

type label int

// link replaces labels by distances.
func link(prog []any) []bpf.Instruction {
	at := map[int]int{}
	n := 0
	for _, p := range prog {
		if l, ok := p.(label); ok {
			at[int(l)] = n
		} else {
			n++
		}
	}
	var out []bpf.Instruction
	skip := func(l int) uint8 {
		if l < 0 {
			return 0
		}
		return uint8(at[l] - len(out) - 1)
	}
	for _, p := range prog {
		switch p := p.(type) {
		case bpf.Instruction:
			out = append(out, p)
		case jump:
			out = append(out, bpf.JumpIf{Cond: p.cond, Val: p.val, SkipTrue: skip(p.yes), SkipFalse: skip(p.no)})
		}
	}
	return out
}
