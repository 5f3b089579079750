package config

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/agentcage/agentcage/internal/hostname"
)

var upstreamKeys = []key[Upstream]{
	pathsKey("ca_files", "Further certificate authorities to trust, as PEM files.", func(u *Upstream) *[]string { return &u.CAFiles }),
	{
		name: "allow_private", typ: typeList, def: "[]", doc: "Names, addresses and CIDR ranges that may be private.",
		read: func(d *decoder, v value, u *Upstream) { u.AllowPrivate = list(d, v, d.private) },
	},
	{name: "hosts", typ: "map of name to address", def: "{}", doc: "Addresses of names, as in /etc/hosts; those names are not asked for in DNS.", read: readHosts},
	{name: "proxy", typ: "text", def: `""`, doc: "HTTP proxy that every connection goes through, http://HOST:PORT.", read: readProxy},
	{
		name: "dns_servers", typ: typeList, def: "[]", doc: "DNS servers of the gateway, ADDRESS or ADDRESS:PORT. Empty takes those of the host.",
		read: func(d *decoder, v value, u *Upstream) { u.DNSServers = readDNS(d, v) },
	},
}

// maxDNSServers is above what resolv.conf takes (3); each is asked at once.
const maxDNSServers = 8

func readDNS(d *decoder, v value) []string {
	out := list(d, v, func(v value) (string, bool) {
		s, ok := d.text(v)
		if !ok {
			return "", false
		}
		name, port, err := splitHost(s)
		switch {
		case err != nil:
			d.fail(v, fmt.Sprintf("%q is no address", clip(s)), `write an address such as 9.9.9.9 or "[2620:fe::fe]:53"`)
			return "", false
		case !name.IsIP():
			d.fail(v, fmt.Sprintf("%q is a name", clip(s)), "write the server's address: names cannot be looked up without it")
			return "", false
		case name.Addr().IsUnspecified() || name.Addr().IsMulticast():
			d.fail(v, fmt.Sprintf("%s is no address of a server", name), "write the server's address")
			return "", false
		case port == 0:
			port = 53
		}
		return name.Authority(port), true
	})
	if len(out) > maxDNSServers {
		d.fail(v, fmt.Sprintf("it has more than %d servers", maxDNSServers), "keep those that are needed: all of them are asked at once")
	}
	return out
}

func (d *decoder) private(v value) (Private, bool) {
	s, ok := d.text(v)
	if !ok {
		return Private{}, false
	}
	if strings.Contains(s, "/") {
		return d.privateRange(v, s)
	}
	host, _ := strings.CutPrefix(s, ".")
	name, err := hostname.Parse(host)
	switch {
	case err != nil && strings.HasPrefix(s, "="):
		d.fail(v, "exact names are not supported here", "write the name without =, or private: true in its entry of domains")
		return Private{}, false
	case err != nil:
		if _, port, e := splitHost(host); e == nil && port != 0 {
			d.fail(v, "it has a port", "write the host alone")
			return Private{}, false
		}
		why, hint := explainHost(host, err)
		d.fail(v, why, hint)
		return Private{}, false
	case name.IsIP():
		return Private{Range: netip.PrefixFrom(name.Addr(), name.Addr().BitLen()).String()}, true
	}
	return Private{Name: name}, d.notSuffix(v, name, "")
}

func (d *decoder) privateRange(v value, s string) (Private, bool) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p.Addr().Is4In6():
		d.fail(v, fmt.Sprintf("%q is no range of addresses", clip(s)), "write it as 10.1.0.0/16 or fd00:1::/32")
	case p.Bits() == 0:
		d.fail(v, "the range is every address there is", "name the networks that are needed")
	case p.Masked() != p:
		d.fail(v, fmt.Sprintf("%s has bits set beyond its length", p), fmt.Sprintf("write %s, or %s/%d for that address alone", p.Masked(), p.Addr(), p.Addr().BitLen()))
	default:
		return Private{Range: p.String()}, true
	}
	return Private{}, false
}

func readHosts(d *decoder, v value, u *Upstream) {
	u.Hosts = nil
	d.table(v, func(k, v value) {
		name, err := hostname.Parse(k.n.Value)
		switch {
		case err != nil:
			why, hint := explainHost(k.n.Value, err)
			d.fail(k, why, hint)
			return
		case name.IsIP():
			d.fail(k, "it is an address already", "write NAME: ADDRESS")
			return
		}
		if _, twice := u.Hosts[name]; twice {
			d.fail(k, fmt.Sprintf("%s is there already, in another spelling", name), "keep one of the two")
			return
		}
		s, ok := d.text(v)
		if !ok {
			return
		}
		address, err := hostname.Parse(s)
		if err != nil || !address.IsIP() {
			d.fail(v, fmt.Sprintf("%q is no address", clip(s)), "write an address such as 10.1.2.3, without a port")
			return
		}
		if u.Hosts == nil {
			u.Hosts = make(map[hostname.Name]hostname.Name)
		}
		u.Hosts[name] = address
	})
}

// readProxy takes http://HOST:PORT alone. Nothing of the value is repeated in
// messages, because people write passwords there.
func readProxy(d *decoder, v value, u *Upstream) {
	u.Proxy = ""
	if v.isNull() || isEmptyText(v) {
		return
	}
	if v.n.Kind != 0 && strings.Contains(v.n.Value, "@") {
		d.failSecret(v, "it holds a user name or a password", "leave out what is before the @: credentials do not belong in this file")
		return
	}
	s, ok := d.text(v)
	if !ok {
		return
	}
	const want = "write http://HOST:PORT"
	rest, ok := strings.CutPrefix(s, "http://")
	switch {
	case strings.HasPrefix(s, "https://"), strings.HasPrefix(s, "socks"):
		d.fail(v, "only plain HTTP proxies are supported", want+"; what goes through it is TLS with the server all the same")
		return
	case !ok:
		d.fail(v, "it does not begin with http://", want)
		return
	}
	name, port, err := hostname.ParseAuthority(strings.TrimSuffix(rest, "/"))
	switch {
	case strings.ContainsAny(strings.TrimSuffix(rest, "/"), "/?#"):
		d.fail(v, "it has a path", want)
	case err != nil:
		d.fail(v, "it has no valid host and port", want)
	case port == 0:
		d.fail(v, "it has no port", want+", such as "+s+":3128")
	default:
		u.Proxy = "http://" + name.Authority(port)
	}
}
