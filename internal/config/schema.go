// Package config reads cage.yaml: one schema, one strict decoder and one table
// of defaults, for the command line and the gateway alike.
package config

import (
	"time"

	"github.com/agentcage/agentcage/internal/hostname"
)

// Config is a complete, validated cage.yaml with every default filled in. Its
// zero value allows nothing.
type Config struct {
	File      string // path it was read from, for messages
	Sum       string // SHA-256 of the bytes it was read from, in hex; empty for defaults
	Name      string
	Isolation string // "" when the file does not say: each command has its own default

	MaxRequestBody        int64                   // bytes; 0 is no limit
	MaxRequestBodyPerHost map[hostname.Name]int64 // of a host and every name under it, in place of MaxRequestBody

	Domains   Domains
	RateLimit RateLimit
	Budget    Budget
	Logging   Logging
	WebSocket WebSocket
	Upstream  Upstream
	Process   Process

	Container   Container
	Firecracker Firecracker

	Inspectors []InspectorRef // those that are not built in, in their order

	// What the file says of sections that this version has no code for.
	Secrets     Secrets
	Injection   Injection
	Entropy     Entropy
	ContentType ContentType

	// Findings that are recorded and not enforced.
	Observe []Exception
	Exempt  []Exception

	warnings []Warning // found while reading; see Warnings
}

// Position is a place in a config file.
type Position struct {
	Key          string // dotted path, as in "domains.allow[2].host"
	Line, Column int    // from 1
}

// Domains says which hosts are reachable. The zero value allows none.
type Domains struct {
	Mode        Mode
	Entries     []Entry // of the allowlist, or of the blocklist
	Passthrough []Entry // hosts whose TLS is spliced, never decrypted; each is also allowed
}

// Mode tells how Entries are meant. The zero Mode allows nothing.
type Mode string

// The modes.
const (
	Allowlist Mode = "allowlist"
	Blocklist Mode = "blocklist"
)

// Entry is one line of a domain list.
type Entry struct {
	Host  hostname.Name
	Exact bool // "=api.example.com": that name and nothing under it

	// Methods, Paths and Ports narrow the entry. Empty means every
	// method, every path, and the ports 80 and 443 (in a blocklist, every port).
	Methods []string
	Paths   []string // globs on the decoded path, see inspect.MatchPath
	Ports   []uint16

	Private bool // may resolve to private addresses

	Position Position
}

// RateLimit is a token bucket for each host.
type RateLimit struct {
	RequestsPerSecond float64       // 0 is off
	Burst             int           // 0 with a rate refuses everything
	Wait              time.Duration // how long a request may be held for a token before it is refused

	// PerHost is the bucket of a host and every name under it. What is in
	// it has no PerHost of its own.
	PerHost map[hostname.Name]RateLimit
}

// WebSocket says how messages are treated.
type WebSocket struct {
	OnBlock string // "close" or "drop"
}

// Logging says what is kept beside what is refused.
type Logging struct {
	Level            string // debug, info, warning, error or critical
	DNSQueries       bool
	ProxyConnections bool
	AllowedRequests  bool
	Services         map[string]string // level of dns, proxy and cage, where it differs
}

// Upstream says how the gateway reaches servers.
type Upstream struct {
	CAFiles      []string
	AllowPrivate []Private
	Hosts        map[hostname.Name]hostname.Name // name to address, as in /etc/hosts
	Proxy        string                          // http://host:port, or empty
	DNSServers   []string                        // host:port; empty means the host's own
}

// Private is one line of upstream.allow_private: a name with everything under
// it, or a range of addresses. Exactly one of the two is set.
type Private struct {
	Name  hostname.Name
	Range string // CIDR in canonical form
}

// Process configures cages of isolation "process".
type Process struct {
	Home           string   // "private" or "persist"
	ReadWrite      []string // absolute, as the next two
	ReadOnly       []string
	AllowSensitive []string
	Unguarded      []string // guarded paths of the working directory left writable; relative to it
	Env            map[string]string
	MemoryBytes    int64
	CPUs           float64
	Processes      int
	OpenFiles      int
}

// Container is the original's container section. It is checked here and used
// by the container backend.
type Container struct {
	Image                string
	Command              []string
	Volumes              []string
	Env                  map[string]string
	NamedVolumes         map[string]string
	Tmpfs                []string
	Ports                []string
	PodmanSecrets        []string
	User                 string
	Memory               string
	CPUs                 string
	ReadOnly             bool
	DropCapabilities     []string
	AddCapabilities      []string
	NoNewPrivileges      bool
	SecurityLabelDisable bool
	Restart              string
	RestartSec           int
	TimeoutStartSec      int // 0 leaves it out
	TimeoutStopSec       int // 0 leaves it out
}

// Firecracker is the original's firecracker section.
type Firecracker struct {
	Kernel string
	VCPUs  int
	MemMB  int
	Binary string
}
