// Package wire is what the conformance suite and its probe inside of the cage
// say to each other: one Ask and one Reply a line, as JSON.
package wire

// Ask is one action. Do names it; which of the other fields count depends on
// it, see the probe's table of actions.
type Ask struct {
	Do    string
	Child bool `json:",omitempty"` // in a process of its own: the action may be deadly

	// An HTTP request, or a connection.
	Via     string `json:",omitempty"` // "proxy": as HTTP_PROXY says; "direct": where DNS says; "addr": to Addr, whatever the URL
	URL     string `json:",omitempty"`
	Network string `json:",omitempty"` // tcp, udp, unix …
	Addr    string `json:",omitempty"`
	Host    string `json:",omitempty"` // Host header, when it is not the URL's
	SNI     string `json:",omitempty"` // server name, when it is not the URL's
	Method  string `json:",omitempty"`
	H1      bool   `json:",omitempty"` // HTTP/1.1 only
	Open    bool   `json:",omitempty"` // keep our half of the connection open while reading
	Data    []byte `json:",omitempty"` // body of a request, content of a file, bytes to send

	// A DNS query to Addr.
	Name, Type string `json:",omitempty"`

	// Files, numbers, programs.
	Path, To string   `json:",omitempty"`
	Nums     []int    `json:",omitempty"`
	Argv     []string `json:",omitempty"`
}

// Reply is what came of it. Err is empty when the action worked.
type Reply struct {
	Err   string `json:",omitempty"`
	Errno string `json:",omitempty"` // as in "EPERM", when the kernel said so; "SIGSYS" when a child died of it

	Status int      `json:",omitempty"` // of HTTP, or a DNS response code
	Proto  string   `json:",omitempty"`
	Data   []byte   `json:",omitempty"`
	List   []string `json:",omitempty"`
	Num    int      `json:",omitempty"`
}

// OK reports whether the action worked.
func (r Reply) OK() bool { return r.Err == "" }

// Text is Data as text.
func (r Reply) Text() string { return string(r.Data) }
