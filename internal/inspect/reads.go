package inspect

// Reads says which content of a flow is read before it goes on. The zero Reads
// reads nothing.
type Reads struct {
	Request   bool // what goes to the server: heads, bodies, trailers, messages of gRPC and Connect
	Messages  bool // those of a WebSocket, both ways
	Responses bool // what comes back: heads, bodies, trailers, events, messages of gRPC and Connect
}

// everything is read for an inspector that cannot say what it wants: it is
// asked, and its answer counts.
var everything = Reads{Request: true, Messages: true, Responses: true}

// Reader is an optional interface of a ContentInspector that says what it is
// to be asked about. One that does not have it is asked about requests and the
// messages of WebSockets.
type Reader interface {
	Reads(r *Request) Reads
}

// Reads says what of a flow the inspectors of content want to be asked about.
// It never panics.
func (c *Chain) Reads(r *Request) Reads {
	var all Reads
	if c == nil {
		return all
	}
	for _, in := range c.contents {
		all = all.and(readsOf(in, r))
	}
	return all
}

func (a Reads) and(b Reads) Reads {
	return Reads{
		Request:   a.Request || b.Request,
		Messages:  a.Messages || b.Messages,
		Responses: a.Responses || b.Responses,
	}
}

// cover reports whether a piece of content is among what is read.
func (a Reads) cover(c *Content) bool {
	switch {
	case c.Kind == KindWebSocket:
		return a.Messages
	case c.Direction == ToServer:
		return a.Request
	case c.Direction == ToClient:
		return a.Responses
	default:
		return true // what is of no known kind is for everybody
	}
}

func readsOf(in ContentInspector, r *Request) (reads Reads) {
	defer func() {
		if recover() != nil {
			reads = everything
		}
	}()
	if in, ok := in.(Reader); ok {
		return in.Reads(r)
	}
	return Reads{Request: true, Messages: true}
}
