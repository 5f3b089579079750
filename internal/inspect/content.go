package inspect

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/agentcage/agentcage/internal/decode"
)

// Direction says which way content goes. The zero Direction is none.
type Direction uint8

// The directions.
const (
	ToServer Direction = iota + 1
	ToClient
)

// Kind says which piece of a flow a Content is.
type Kind uint8

// The kinds of content.
const (
	KindRequest   Kind = iota + 1 // a request: its head, and all of its body unless windows or messages follow
	KindWindow                    // a piece of a body that is too long to be kept; begins with the end of the piece before
	KindMessage                   // a message of a gRPC or Connect stream
	KindTrailer                   // the trailer of a request or a response
	KindWebSocket                 // a message of a WebSocket
	KindResponse                  // a response: its head, and all of its body unless events or messages follow
	KindEvent                     // an event of an event stream
)

// Content is one piece of a flow. All inspectors of a chain share it, so that
// it is decoded once. It is for one goroutine at a time, and inspectors must
// not change it.
type Content struct {
	Request   *Request // the head of the flow, never nil
	Kind      Kind
	Direction Direction
	Status    int         // of a response
	Header    http.Header // that comes with this piece: of the request, of the response, or the trailer
	Type      string      // Content-Type as declared for the body
	Encoding  []string    // Content-Encoding as declared for the body
	Body      []byte
	Repeated  int // bytes at the beginning of a window's Body that ended the one before

	// Prior is what the inspectors before found in this piece, enforced or
	// not. The chain fills it in.
	Prior []Finding

	settle  []func(sent bool)
	texts   []Text
	textErr error
	decoded bool
}

// Place says where in a message a text stood.
type Place uint8

// The places.
const (
	PlaceMethod  Place = iota + 1
	PlaceHost          // one label or more of the host name
	PlacePath          // the whole path as it is sent
	PlaceSegment       // one segment of the path
	PlaceQuery         // the whole query as it is sent
	PlaceQueryName
	PlaceQueryValue
	PlaceHeaderName
	PlaceHeader // a value
	PlaceCookie // the value of one cookie
	PlaceBody
)

// Text is one thing that the sender chose, with everything it decodes to.
type Text struct {
	Place Place
	Name  string // of the header, parameter or cookie
	Tree  *decode.Tree
}

// Result is what a content inspector says. The zero Result blocks; Done makes
// one that does not.
type Result struct {
	done     bool
	findings []Finding
}

// Done returns the result of an inspector that looked at everything. Without
// findings the content passes.
func Done(fs ...Finding) Result { return Result{done: true, findings: fs} }

// ContentInspector looks at what is in a flow: requests with their bodies,
// messages, responses.
//
// InspectContent is called concurrently. It reports everything that it finds,
// not only the first, so that a finding that is exempt hides no other one. It
// must return Done(...); the zero Result, a panic and a cancelled context
// block.
type ContentInspector interface {
	Name() string
	InspectContent(ctx context.Context, c *Content) Result
}

// Texts returns everything in the content that its sender chose: the parts of
// the URL, headers, the body. It decodes at the first call. An error, a
// *decode.Error, says that something could not be looked at in full.
func (c *Content) Texts(ctx context.Context) ([]Text, error) {
	if !c.decoded {
		c.decoded = true
		c.texts, c.textErr = c.read(ctx)
	}
	return c.texts, c.textErr
}

func (c *Content) read(ctx context.Context) ([]Text, error) {
	var out []Text
	var failed error
	add := func(p Place, name string, in decode.Input) {
		tree, err := decode.Decode(ctx, in, decode.Limits{})
		if err != nil && failed == nil {
			failed = err
		}
		if err == nil {
			out = append(out, Text{Place: p, Name: name, Tree: tree})
		}
	}
	if c.Kind == KindRequest {
		c.readHead(func(p Place, name, value string) { add(p, name, decode.Input{Data: []byte(value)}) })
	}
	c.readHeader(func(p Place, name, value string) { add(p, name, decode.Input{Data: []byte(value)}) })
	if len(c.Body) > 0 {
		add(PlaceBody, "", decode.Input{Data: c.Body, Type: c.Type, Encoding: c.Encoding})
	}
	return out, failed
}

// readHead gives the parts of the request line.
func (c *Content) readHead(add func(p Place, name, value string)) {
	r := c.Request
	add(PlaceMethod, "", r.Method)
	add(PlaceHost, "", r.Host.String())
	if r.URL == nil {
		return
	}
	path := r.URL.EscapedPath()
	add(PlacePath, "", path)
	for segment := range strings.SplitSeq(path, "/") {
		if segment != "" {
			add(PlaceSegment, "", segment)
		}
	}
	if r.URL.RawQuery == "" {
		return
	}
	add(PlaceQuery, "", r.URL.RawQuery)
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		name, value, _ := strings.Cut(pair, "=")
		add(PlaceQueryName, "", name)
		if value != "" {
			add(PlaceQueryValue, name, value)
		}
	}
}

// readHeader gives every line of a header, and each cookie by itself. The order
// is fixed, so that a verdict does not depend on chance.
func (c *Content) readHeader(add func(p Place, name, value string)) {
	names := make([]string, 0, len(c.Header))
	for name := range c.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		add(PlaceHeaderName, "", name)
		for _, value := range c.Header[name] {
			add(PlaceHeader, name, value)
			if name != "Cookie" {
				continue
			}
			for pair := range strings.SplitSeq(value, ";") {
				k, v, _ := strings.Cut(strings.TrimSpace(pair), "=")
				add(PlaceCookie, k, v)
			}
		}
	}
}
