package dial

import "net/netip"

// Class says what an address is for. The zero Class is an invalid address.
type Class uint8

// The classes from the IANA special-purpose address registries (RFC 6890) and
// the multicast registries. Only Global may be dialled without permission.
const (
	Invalid Class = iota
	Reserved
	Multicast
	Broadcast
	Unspecified
	LinkLocal // holds the metadata services of the clouds
	Loopback
	Private
	SharedCGN
	Protocol // IETF protocol assignments, transition and translation prefixes
	Benchmarking
	Documentation
	Discard
	Global
)

var classNames = [...]string{
	Invalid: "invalid", Reserved: "reserved", Multicast: "multicast", Broadcast: "broadcast",
	Unspecified: "unspecified", LinkLocal: "link-local", Loopback: "loopback", Private: "private",
	SharedCGN: "shared (carrier-grade NAT)", Protocol: "protocol", Benchmarking: "benchmarking",
	Documentation: "documentation", Discard: "discard", Global: "global",
}

// String returns the word that reasons use.
func (c Class) String() string {
	if int(c) >= len(classNames) {
		return classNames[Invalid]
	}
	return classNames[c]
}

type block struct {
	prefix netip.Prefix
	class  Class
}

func b(prefix string, c Class) block { return block{netip.MustParsePrefix(prefix), c} }

// blocks4 is the IANA IPv4 Special-Purpose Address Registry. The narrower of
// two blocks stands first. The table is our own because the tables of
// libraries differ between versions.
var blocks4 = []block{
	b("0.0.0.0/32", Unspecified),        // RFC 1122 section 3.2.1.3
	b("0.0.0.0/8", Reserved),            // RFC 791: this network; Linux routes some of it to itself
	b("10.0.0.0/8", Private),            // RFC 1918
	b("100.64.0.0/10", SharedCGN),       // RFC 6598; also 100.100.100.200, the metadata of Alibaba Cloud
	b("127.0.0.0/8", Loopback),          // RFC 1122
	b("168.63.129.16/32", LinkLocal),    // the platform service of Azure, public by number only
	b("169.254.0.0/16", LinkLocal),      // RFC 3927; 169.254.169.254 metadata
	b("172.16.0.0/12", Private),         // RFC 1918
	b("192.0.0.0/24", Protocol),         // RFC 6890, 7335, 7600, 8155; 192.0.0.192 metadata of Oracle
	b("192.0.2.0/24", Documentation),    // RFC 5737
	b("192.31.196.0/24", Protocol),      // RFC 7535 AS112
	b("192.52.193.0/24", Protocol),      // RFC 7450 AMT
	b("192.88.99.0/24", Protocol),       // RFC 7526, 6to4 relay anycast, deprecated
	b("192.168.0.0/16", Private),        // RFC 1918
	b("192.175.48.0/24", Protocol),      // RFC 7534 AS112
	b("198.18.0.0/15", Benchmarking),    // RFC 2544
	b("198.51.100.0/24", Documentation), // RFC 5737; .1 is what our DNS answers for blocked names
	b("203.0.113.0/24", Documentation),  // RFC 5737
	b("224.0.0.0/4", Multicast),         // RFC 5771
	b("255.255.255.255/32", Broadcast),  // RFC 919
	b("240.0.0.0/4", Reserved),          // RFC 1112 section 4
}

// blocks6 is the IANA IPv6 Special-Purpose Address Registry. What is in none
// of the blocks and not in 2000::/3 is not allocated and therefore Reserved.
var blocks6 = []block{
	b("::/128", Unspecified),          // RFC 4291 section 2.5.2
	b("::1/128", Loopback),            // RFC 4291 section 2.5.3
	b("::/96", Reserved),              // RFC 4291 section 2.5.5.1, IPv4-compatible, deprecated
	b("::ffff:0:0/96", Reserved),      // RFC 4291 section 2.5.5.2; Classify unmaps before it looks here
	b("::ffff:0:0:0/96", Protocol),    // RFC 2765, IPv4-translated, obsolete
	b("64:ff9b::/96", Protocol),       // RFC 6052
	b("64:ff9b:1::/48", Protocol),     // RFC 8215, local-use translation
	b("100::/64", Discard),            // RFC 6666
	b("100:0:0:1::/64", Discard),      // RFC 9780, dummy prefix
	b("2001::/32", Protocol),          // RFC 4380 Teredo
	b("2001:2::/48", Benchmarking),    // RFC 5180
	b("2001:10::/28", Protocol),       // RFC 4843 ORCHID, deprecated
	b("2001:20::/28", Protocol),       // RFC 7343 ORCHIDv2
	b("2001:db8::/32", Documentation), // RFC 3849
	b("2001::/23", Protocol),          // RFC 2928
	b("2002::/16", Protocol),          // RFC 3056 6to4
	b("2620:4f:8000::/48", Protocol),  // RFC 7534 AS112
	b("3ffe::/16", Reserved),          // RFC 3701, the former 6bone
	b("3fff::/20", Documentation),     // RFC 9637
	b("5f00::/16", Protocol),          // RFC 9602 SRv6 SIDs
	b("fd00:ec2::/32", LinkLocal),     // metadata and DNS of AWS inside unique local
	b("fc00::/7", Private),            // RFC 4193 unique local
	b("fe80::/10", LinkLocal),         // RFC 4291 section 2.5.6
	b("fec0::/10", Private),           // RFC 3879 site-local, deprecated
	b("ff00::/8", Multicast),          // RFC 4291 section 2.7
}

var unicast6 = netip.MustParsePrefix("2000::/3") // RFC 4291 section 2.4, IANA allocations

// Classify returns the class of an address. IPv4-mapped addresses are the
// IPv4 address. An IPv6 address that carries an IPv4 address (compatible,
// translated, NAT64, 6to4, Teredo, ISATAP) is of the worse class of the two,
// and a transition prefix is never Global: whether a translator on the way
// unwraps it is not ours to know.
func Classify(a netip.Addr) Class {
	if !a.IsValid() {
		return Invalid
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return lookup(blocks4, a, Global)
	}
	class := Reserved
	if unicast6.Contains(a) {
		class = Global
	}
	class = lookup(blocks6, a, class)
	for _, in := range embedded(a) {
		class = worse(class, lookup(blocks4, in, Global))
	}
	return class
}

// worse orders by the constants: what reaches this machine or the network it
// is in is worse than what reaches nothing.
func worse(x, y Class) Class { return min(x, y) }

func lookup(table []block, a netip.Addr, other Class) Class {
	for i := range table {
		if table[i].prefix.Contains(a) {
			return table[i].class
		}
	}
	return other
}

var (
	low96    = netip.MustParsePrefix("::/96")
	transl96 = netip.MustParsePrefix("::ffff:0:0:0/96")
	nat64    = netip.MustParsePrefix("64:ff9b::/96")
	nat64l   = netip.MustParsePrefix("64:ff9b:1::/48")
	sixtofur = netip.MustParsePrefix("2002::/16")
	teredo   = netip.MustParsePrefix("2001::/32")
	loop6    = netip.MustParseAddr("::1")
)

// embedded returns the IPv4 addresses that a transition mechanism reads in a.
func embedded(a netip.Addr) []netip.Addr {
	w := a.As16()
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte(w[i : i+4])) }
	switch {
	case a == netip.IPv6Unspecified() || a == loop6:
		return nil
	case low96.Contains(a), transl96.Contains(a), nat64.Contains(a):
		return []netip.Addr{at(12)}
	case nat64l.Contains(a):
		// RFC 6052 section 2.2 with a /48: the bytes round the u octet; a
		// site may also use a /96 of it.
		return []netip.Addr{netip.AddrFrom4([4]byte{w[6], w[7], w[9], w[10]}), at(12)}
	case sixtofur.Contains(a):
		return []netip.Addr{at(2)}
	case teredo.Contains(a):
		client := netip.AddrFrom4([4]byte{^w[12], ^w[13], ^w[14], ^w[15]})
		return []netip.Addr{at(4), client} // RFC 4380 section 4: server, inverted client
	case w[8]&^3 == 0 && w[9] == 0 && w[10] == 0x5e && w[11] == 0xfe:
		return []netip.Addr{at(12)} // RFC 5214 section 6.1, ISATAP in any prefix
	}
	return nil
}
