// Package audit is the one stream into which every decision of every layer
// goes: HTTP, WebSocket, DNS and what the kernel refused below them.
//
// A producer hands a Record to a Sink. Which records are kept is decided at
// the sink and never by the producer, so that no consumer is blind to a part
// of the traffic.
package audit

import (
	"crypto/rand"
	"encoding/hex"
	"time"
)

// Kinds of records. The empty kind is an HTTP request.
const (
	KindDNS        = "dns"
	KindTunnel     = "tunnel"         // TLS passed through without being decrypted, or a tunnel that carried no request
	KindTCP        = "tcp_refused"    // a connection that the kernel refused for us
	KindUDP        = "udp_refused"    // a datagram to a port where nothing listens
	KindICMP       = "icmp_refused"   // an echo request or the like
	KindSocket     = "socket_refused" // a raw, packet or vsock socket
	KindProtocol   = "protocol_error" // bytes that are neither TLS nor well-formed HTTP
	KindUpstream   = "upstream_error" // allowed, but the server could not be reached
	KindWebSocket  = "websocket"      // a message inside a WebSocket
	KindReload     = "config_reload"  // a new policy took effect
	KindReloadFail = "config_reload_failed"
	KindBudget     = "budget" // what went to one destination in all
)

// Finding is one inspector's part in a decision.
type Finding struct {
	Name     string `json:"name"`
	Action   string `json:"action"`
	Reason   string `json:"reason"`
	Severity string `json:"severity"`
	Rule     string `json:"rule"` // of the inspector; empty when it has only one
	Mode     string `json:"mode"` // "observe" or "exempt" when the action was not enforced
}

// Record is one decision. Field order and names in JSON are those of the
// original agentcage; id and kind come after them. It must never hold the real
// value of a secret: sinks redact, and producers do not put one in.
type Record struct {
	Time      time.Time // UTC; the sink's clock when zero
	Direction string    // "outbound" when empty, or "inbound"
	Method    string
	Host      string
	Port      uint16
	Path      string
	URL       string
	Decision  string // "allowed", "flagged" or "blocked"; anything else is written as "blocked"
	Reason    string
	Source    string

	SecretsInjected []string
	SecretsRedacted []string
	Inspectors      []Finding

	Kind string
	ID   string // the same id that a refused client was shown; made by the sink when empty

	// Revises is the decision that an earlier record with the same id
	// told, when this one tells what came of it. It is not written.
	Revises string

	// Count is how many like events the record stands for; 0 means 1.
	Count int
}

// Sink takes records. Put is safe for concurrent use. An error means that the
// record may be lost, and whoever was about to allow something on the strength
// of it must refuse instead.
type Sink interface {
	Put(Record) error
}

// Keeper is an optional interface of a Sink that says beforehand what it will
// keep of a record, so that nobody works on what is thrown away.
type Keeper interface {
	// Keeps reports whether path, URL and findings of a record are kept or
	// shown. Of others no more than host, decision and reason are used.
	Keeps(r *Record) bool
}

// NewID returns a new identifier for a decision, as shown to the client and
// written to the log.
func NewID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails, crypto/rand
	return hex.EncodeToString(b[:])
}
