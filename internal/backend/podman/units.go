// Package podman makes cages of isolation "container": services on rootless
// Podman under systemd, generated from quadlet units.
package podman

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/image"
	"github.com/agentcage/agentcage/internal/quadlet"
)

// Ports of the gateway inside the cage's network.
const (
	ProxyPort = 8080 // of the explicit proxy, which HTTP_PROXY names
	dnsPort   = 53
)

// Places in the containers.
const (
	configFile = "/etc/agentcage/config.yaml"
	caDir      = "/ca"
	certDir    = "/certs"
	secretsDir = "/run/secrets"
	// Certificate is where the agent finds the one that it is to trust.
	Certificate = certDir + "/ca.pem"
)

// Facts are what a cage's units depend on beside its config.
type Facts struct {
	Gateway string // image of the gateway, by its ID or a tag of its content
	Agent   string // image of the agent
	Net     Net

	// Files on the host, absolute.
	Config     string // the gateway's config
	ResolvConf string // the cage's resolv.conf(5)
	Roots      string // certificates of the authorities that upstream servers are signed by

	// Placeholders are variables of the agent that stand for secrets which
	// only the gateway gets.
	Placeholders map[string]string
}

// Net is a cage's network. No other cage has the same subnets.
type Net struct{ V4, V6 netip.Prefix } // a /24 and a /64

// Hosts of a cage's network, in both subnets. The next hop of the default
// route is an address of its own, which the proxy takes when it starts: the
// route of a network is made in every container of it, and the kernel refuses
// one whose next hop is the container itself.
const (
	hopHost, cageHost, dnsHost, proxyHost = 1, 2, 10, 11
)

// Hop is the next hop of the cage's default routes.
func (n Net) Hop() (v4, v6 netip.Addr) { return n.host(hopHost) }

// Cage is the agent's address.
func (n Net) Cage() (v4, v6 netip.Addr) { return n.host(cageHost) }

// DNS is where queries are answered.
func (n Net) DNS() (v4, v6 netip.Addr) { return n.host(dnsHost) }

// Proxy is where the explicit proxy listens.
func (n Net) Proxy() (v4, v6 netip.Addr) { return n.host(proxyHost) }

func (n Net) host(last byte) (v4, v6 netip.Addr) {
	a, b := n.V4.Masked().Addr().As4(), n.V6.Masked().Addr().As16()
	a[3], b[15] = last, last
	return netip.AddrFrom4(a), netip.AddrFrom16(b)
}

func (n Net) check() error {
	if !n.V4.Addr().Is4() || n.V4.Bits() != 24 || !n.V6.Addr().Is6() || n.V6.Addr().Is4In6() || n.V6.Bits() != 64 {
		return fmt.Errorf("a cage's network is a /24 and a /64, not %v and %v", n.V4, n.V6)
	}
	return nil
}

// Names of what a cage has on the host, by which it is found again.
func networkName(cage string) string { return cage + "-net" }
func certsVolume(cage string) string { return "agentcage-certs-" + cage }
func caVolume(cage string) string    { return "agentcage-ca-" + cage }

// Units are the unit files of a cage, in the order in which they depend on one
// another. They are a pure function of what is given: two calls give the same
// bytes. A config that cannot be written as units is an error, and every
// mistake in it is named.
func Units(c *config.Config, f Facts) ([]*quadlet.File, error) {
	if !config.ValidName(c.Name) {
		return nil, fmt.Errorf("%q is no name for a cage", c.Name)
	}
	u := units{name: c.Name, config: c, facts: f}
	if err := errors.Join(f.Net.check(), u.checkSecrets(), u.checkMounts(), u.checkCapabilities()); err != nil {
		return nil, fmt.Errorf("cannot write the units of %s: %w", c.Name, err)
	}
	files := []*quadlet.File{u.network(), u.volume("ca", caVolume(c.Name)), u.volume("certs", certsVolume(c.Name)), u.dns(), u.proxy(), u.cage()}
	for _, file := range files {
		if _, err := file.Bytes(); err != nil {
			return nil, fmt.Errorf("cannot write the units of %s: %w", c.Name, err)
		}
	}
	return files, nil
}

type units struct {
	name   string
	config *config.Config
	facts  Facts
}

// file begins a unit. Without its last lines the service would wait for a
// network of the host's, for 90 s where there is none.
func (u *units) file(part, kind, what string) *quadlet.File {
	f := quadlet.New(u.name + "-" + part + "." + kind)
	f.Section("Unit").Add("Description", what+" of agentcage "+u.name)
	f.Section("Quadlet").Add("DefaultDependencies", "false")
	return f
}

func (u *units) network() *quadlet.File {
	f := u.file("net", "network", "Network")
	hop4, hop6 := u.facts.Net.Hop()
	// The metric is worse than Podman's own (100): in a container that has
	// another network, too, that one leads to the world. Without DNS an
	// internal bridge has no address that the cage could reach.
	const metric = ",5000"
	f.Section("Network").
		Add("NetworkName", networkName(u.name)).
		Add("Internal", "true").
		Add("DisableDNS", "true").
		Add("IPv6", "true").
		Add("Subnet", u.facts.Net.V4.Masked().String()).
		Add("Subnet", u.facts.Net.V6.Masked().String()).
		Add("Label", "agentcage.cage", u.name).
		Add("PodmanArgs", "--route=0.0.0.0/0,"+hop4.String()+metric, "--route=::/0,"+hop6.String()+metric)
	return f
}

func (u *units) volume(part, name string) *quadlet.File {
	f := u.file(part, "volume", "Volume "+part)
	f.Section("Volume").Add("VolumeName", name).Add("Label", "agentcage.cage", u.name)
	return f
}

// container begins a container in the cage's network.
func (u *units) container(part, what, image string, address func() (v4, v6 netip.Addr)) (*quadlet.File, *quadlet.Section) {
	f := u.file(part, "container", what)
	v4, v6 := address()
	s := f.Section("Container").
		Add("ContainerName", u.name+"-"+part).
		Add("Image", image).
		Add("Label", "agentcage.cage", u.name).
		Add("Network", fmt.Sprintf("%s-net.network:ip=%v,ip6=%v,mac=%v", u.name, v4, v6, hardware(v4)))
	f.Section("Install").Add("WantedBy", "default.target")
	return f, s
}

// hardware is the address below an address: with one that stays, neighbours
// need not find out that a container was started anew.
func hardware(a netip.Addr) net.HardwareAddr {
	const local = 2 // administered by us (IEEE 802, U/L bit)
	return append(net.HardwareAddr{local, 0}, a.AsSlice()...)
}

// gateway begins a container of the trusted side: it has a way out, and
// nothing else that it does not need.
func (u *units) gateway(part, what string, address func() (v4, v6 netip.Addr)) (*quadlet.File, *quadlet.Section) {
	f, s := u.container(part, what, u.facts.Gateway, address)
	s.Add("Network", "podman").
		Add("User", image.User).
		Add("ReadOnly", "true").
		Add("ReadOnlyTmpfs", "false").
		Add("NoNewPrivileges", "true").
		Add("DropCapability", "ALL").
		// Ports below 1024 without a capability, and never a router whatever
		// the host is.
		Add("Sysctl", "net.ipv4.ip_unprivileged_port_start=0").
		Add("Sysctl", "net.ipv4.ip_forward=0").
		Add("Sysctl", "net.ipv6.conf.all.forwarding=0").
		Add("Pull", "never").
		Add("Notify", "true").
		Add("Volume", u.facts.Config+":"+configFile+":ro,Z").
		Add("Volume", u.facts.Roots+":/etc/ssl/certs/ca-certificates.crt:ro")
	// Direct, so that a gateway that failed comes back without the agent's
	// being restarted (systemd.service(5); before version 254 it is, too).
	f.Section("Service").Add("Restart", "on-failure").Add("RestartMode", "direct").Add("RestartSec", "1").Add("TimeoutStartSec", "60")
	return f, s
}

func (u *units) dns() *quadlet.File {
	f, s := u.gateway("dns", "DNS server", u.facts.Net.DNS)
	v4, _ := u.facts.Net.DNS()
	s.Add("Exec", "dns", "--config", configFile, "--listen", netip.AddrPortFrom(v4, dnsPort).String())
	return f
}

func (u *units) proxy() *quadlet.File {
	f, s := u.gateway("proxy", "Gateway", u.facts.Net.Proxy)
	f.Section("Unit").Add("Requires", u.service("dns")).Add("After", u.service("dns"))
	v4, _ := u.facts.Net.Proxy()
	// NET_ADMIN for the routes that make every address its own on the side
	// of the cage, NET_RAW to see what the kernel refuses there. Only an
	// address of its own answers to ARP: the others have their owners.
	s.Add("AddCapability", "NET_ADMIN", "NET_RAW").
		Add("Sysctl", "net.ipv4.conf.all.arp_ignore=1").
		Add("Volume", u.name+"-ca.volume:"+caDir+":U").
		Add("Volume", u.name+"-certs.volume:"+certDir+":U")
	for _, r := range u.config.Injection.Rules {
		s.Add("Secret", u.name+"."+r.Env+",type=mount,target="+secretsDir+"/"+r.Env+",uid=65532,gid=65532,mode=0400")
	}
	for _, p := range u.config.Container.Ports {
		s.Add("PublishPort", published(p))
	}
	s.Add("Exec", "proxy", "--config", configFile, "--ca-dir", caDir, "--secrets-dir", secretsDir,
		"--listen", netip.AddrPortFrom(v4, ProxyPort).String(), "--transparent-http", ":80", "--transparent-tls", ":443")
	return f
}

func (u *units) service(part string) string { return u.name + "-" + part + ".service" }

// published gives a port that says no address to this host alone (rules.md 90).
func published(port string) string {
	if strings.Count(port, ":") < 2 {
		return "127.0.0.1:" + port
	}
	return port
}

func (u *units) cage() *quadlet.File {
	f, s := u.container("cage", "Agent", u.facts.Agent, u.facts.Net.Cage)
	c := &u.config.Container
	f.Section("Unit").
		Add("Requires", u.service("dns"), u.service("proxy")).
		Add("After", u.service("dns"), u.service("proxy"))
	u.environment(s)
	s.Add("Volume", u.name+"-certs.volume:"+certDir+":ro").
		Add("Volume", u.facts.ResolvConf+":/etc/resolv.conf:ro,Z")
	for _, v := range c.Volumes {
		s.Add("Volume", v)
	}
	for _, name := range slices.Sorted(maps.Keys(c.NamedVolumes)) {
		s.Add("Volume", name+":"+c.NamedVolumes[name])
	}
	for _, t := range c.Tmpfs {
		s.Add("Tmpfs", t)
	}
	for _, name := range c.PodmanSecrets {
		if !u.injected(name) {
			s.Add("Secret", u.name+"."+name+",type=env,target="+name)
		}
	}
	u.confine(s)
	if len(c.Command) > 0 {
		s.Add("Exec", c.Command...)
	}
	service := f.Section("Service").Add("Restart", c.Restart).Add("RestartSec", strconv.Itoa(c.RestartSec))
	if c.TimeoutStartSec > 0 {
		service.Add("TimeoutStartSec", strconv.Itoa(c.TimeoutStartSec))
	}
	if c.TimeoutStopSec > 0 {
		service.Add("TimeoutStopSec", strconv.Itoa(c.TimeoutStopSec))
	}
	return f
}

// environment is how programs find the gateway and trust it. What the user
// says wins; the walls do not depend on it.
func (u *units) environment(s *quadlet.Section) {
	v4, _ := u.facts.Net.Proxy()
	proxy := "http://" + netip.AddrPortFrom(v4, ProxyPort).String()
	env := map[string]string{
		"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "http_proxy": proxy, "https_proxy": proxy,
		"NODE_EXTRA_CA_CERTS": Certificate, "SSL_CERT_FILE": Certificate,
	}
	maps.Copy(env, u.facts.Placeholders)
	maps.Copy(env, u.config.Container.Env)
	for _, name := range slices.Sorted(maps.Keys(env)) {
		s.Add("Environment", name, env[name])
	}
}

// injected tells whether a secret is the gateway's, so that the agent gets a
// placeholder and never the secret itself.
func (u *units) injected(name string) bool {
	return slices.ContainsFunc(u.config.Injection.Rules, func(r config.InjectionRule) bool { return r.Env == name })
}

func (u *units) confine(s *quadlet.Section) {
	c := &u.config.Container
	if c.User != "" {
		s.Add("User", c.User)
	}
	s.Add("ReadOnly", strconv.FormatBool(c.ReadOnly)).
		Add("NoNewPrivileges", strconv.FormatBool(c.NoNewPrivileges)).
		Add("SecurityLabelDisable", strconv.FormatBool(c.SecurityLabelDisable)).
		Add("Pull", "never")
	if len(c.DropCapabilities) > 0 {
		s.Add("DropCapability", c.DropCapabilities...)
	}
	if len(c.AddCapabilities) > 0 {
		s.Add("AddCapability", c.AddCapabilities...)
	}
	if c.Memory != "" {
		s.Add("PodmanArgs", "--memory="+c.Memory)
	}
	if c.CPUs != "" {
		s.Add("PodmanArgs", "--cpus="+c.CPUs)
	}
}

// checkSecrets keeps names out in which a comma would begin an option.
func (u *units) checkSecrets() error {
	names := slices.Clone(u.config.Container.PodmanSecrets)
	for _, r := range u.config.Injection.Rules {
		names = append(names, r.Env)
	}
	var errs []error
	for _, name := range names {
		if strings.ContainsFunc(name, func(r rune) bool {
			return r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
		}) || name == "" {
			errs = append(errs, fmt.Errorf("secret %q: it is no name of a variable", name))
		}
	}
	return errors.Join(errs...)
}

// reserved are places of the agent's that a mount of the user's must not take.
var reserved = []string{certDir, "/etc/resolv.conf", "/proc", "/sys", "/dev"}

// checkMounts refuses mounts that the generator or podman would take for
// something else (rules.md 89), and those that would take ours away.
func (u *units) checkMounts() error {
	c := &u.config.Container
	var errs []error
	for _, v := range c.Volumes {
		source, rest, _ := strings.Cut(v, ":")
		if !path.IsAbs(source) || path.Clean(source) != source {
			errs = append(errs, fmt.Errorf("volume %q: its source is no absolute path", v))
		}
		errs = append(errs, checkTarget("volume", v, rest))
	}
	for name, spec := range c.NamedVolumes {
		// "x.volume" names a unit, and ours are not for the agent.
		if strings.HasSuffix(name, ".volume") || strings.HasPrefix(name, "agentcage-") {
			errs = append(errs, fmt.Errorf("named volume %q: the name is reserved", name))
		}
		errs = append(errs, checkTarget("named volume", name+":"+spec, spec))
	}
	for _, t := range c.Tmpfs {
		errs = append(errs, checkTarget("tmpfs", t, t))
	}
	return errors.Join(errs...)
}

func checkTarget(kind, whole, spec string) error {
	target, _, _ := strings.Cut(spec, ":")
	if !path.IsAbs(target) || path.Clean(target) != target {
		return fmt.Errorf("%s %q: it is not mounted at an absolute path", kind, whole)
	}
	for _, r := range reserved {
		if target == "/" || target == r || strings.HasPrefix(target, r+"/") {
			return fmt.Errorf("%s %q: %s is reserved", kind, whole, target)
		}
	}
	return nil
}

// checkCapabilities refuses those with which a container of a user namespace
// leaves its network or changes what is mounted.
func (u *units) checkCapabilities() error {
	var errs []error
	for _, name := range u.config.Container.AddCapabilities {
		switch strings.TrimPrefix(strings.ToUpper(name), "CAP_") {
		case "ALL", "NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "BPF", "PERFMON":
			errs = append(errs, fmt.Errorf("capability %s: with it the agent could get past the gateway", name))
		}
	}
	return errors.Join(errs...)
}
