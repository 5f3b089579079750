package inspect

import (
	"bytes"
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
	memo    map[any]any
	large   permit
}

// Memo returns what make returned at the first call with a key, so that
// inspectors who need the same measure of the content take it once.
func (c *Content) Memo(key any, make func() any) any {
	if v, ok := c.memo[key]; ok {
		return v
	}
	v := make()
	if c.memo == nil {
		c.memo = map[any]any{}
	}
	c.memo[key] = v
	return v
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
	Quiet *Quiet // of one that came before; may be nil
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
	g := gathered{places: make([]gatheredText, 0, 16+2*len(c.Header))}
	if c.Kind == KindRequest {
		c.readHead(g.add)
	}
	c.readHeader(g.add)
	texts, failed := g.decode(ctx)
	if len(c.Body) > 0 {
		limits := decode.Limits{Large: c.large.take}
		tree, err := decode.Decode(ctx, decode.Input{Data: c.Body, Type: c.Type, Encoding: c.Encoding}, limits)
		if err == nil {
			texts = append(texts, Text{Place: PlaceBody, Tree: tree})
		} else if failed == nil {
			failed = err
		}
	}
	return texts, failed
}

// gathered are the texts of a head before they are decoded. There are dozens in
// each request, short ones of which hardly any decodes to something, so they
// share their memory.
type gathered struct {
	places []gatheredText
	bytes  []byte
}

type gatheredText struct {
	place      Place
	name       string
	start, end int // in bytes
	quiet      *Quiet
	again      uint64 // hash of one that is worth remembering
}

func (g *gathered) add(p Place, name, value string) {
	t := gatheredText{place: p, name: name, start: len(g.bytes)}
	if t.quiet, t.again = recall(p, name, value); t.quiet == nil {
		g.bytes = append(g.bytes, value...)
	}
	t.end = len(g.bytes)
	g.places = append(g.places, t)
}

func (g *gathered) decode(ctx context.Context) (texts []Text, failed error) {
	texts = make([]Text, 0, len(g.places)+1) // and the body
	var singles []decode.Single
	for i, t := range g.places {
		if t.quiet != nil {
			texts = append(texts, Text{Place: t.place, Name: t.name, Tree: t.quiet.tree, Quiet: t.quiet})
			continue
		}
		if singles == nil {
			singles = make([]decode.Single, len(g.places)-i)
		}
		data := g.bytes[t.start:t.end:t.end]
		tree := singles[0].Tree(data)
		singles = singles[1:]
		if needsDecoding(t.place, data) {
			var err error
			if tree, err = decode.Decode(ctx, inputOf(t.place, data), decode.Limits{}); err != nil {
				if failed == nil {
					failed = err
				}
				continue
			}
		}
		text := Text{Place: t.place, Name: t.name, Tree: tree}
		if t.again != 0 && len(tree.Layers) == 1 {
			text.Quiet = remember(t.again, t.place, t.name, string(data))
		}
		texts = append(texts, text)
	}
	return texts, failed
}

func needsDecoding(p Place, data []byte) bool {
	return !decode.Plain(data) || isForm(p) && bytes.IndexByte(data, '+') >= 0
}

// inputOf says what servers take a place for: a plus in a query is a space.
func inputOf(p Place, data []byte) decode.Input {
	if isForm(p) {
		return decode.Input{Data: data, Type: "application/x-www-form-urlencoded"}
	}
	return decode.Input{Data: data}
}

func isForm(p Place) bool { return p == PlaceQueryName || p == PlaceQueryValue }

// readHead gives the parts of the request line.
func (c *Content) readHead(add func(p Place, name, value string)) {
	r := c.Request
	add(PlaceMethod, "", r.Method)
	add(PlaceHost, "", r.Host.String())
	if r.URL == nil {
		return
	}
	path := r.EscapedPath()
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
// is fixed, so that a verdict does not depend on chance. Names that every client
// sends are left out: they carry nothing.
func (c *Content) readHeader(add func(p Place, name, value string)) {
	names := make([]string, 0, len(c.Header))
	for name := range c.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !usualNames[name] {
			add(PlaceHeaderName, "", name)
		}
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

// usualNames are header fields whose names say nothing, in canonical form.
var usualNames = func() map[string]bool {
	t := map[string]bool{}
	for _, name := range strings.Fields(`
		Accept Accept-Charset Accept-Encoding Accept-Language Access-Control-Allow-Origin Age Allow Authorization
		Cache-Control Connection Content-Disposition Content-Encoding Content-Language Content-Length
		Content-Location Content-Md5 Content-Range Content-Security-Policy Content-Type Cookie Date Dnt Etag Expect
		Expires Forwarded From Host If-Match If-Modified-Since If-None-Match If-Range If-Unmodified-Since
		Keep-Alive Last-Modified Link Location Max-Forwards Mcp-Protocol-Version Mcp-Session-Id Origin Pragma
		Priority Proxy-Authorization Range Referer Retry-After Sec-Ch-Ua Sec-Ch-Ua-Mobile Sec-Ch-Ua-Platform
		Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Sec-Fetch-User Sec-Websocket-Extensions Sec-Websocket-Key
		Sec-Websocket-Protocol Sec-Websocket-Version Server Set-Cookie Strict-Transport-Security Te Trailer
		Transfer-Encoding Upgrade Upgrade-Insecure-Requests User-Agent Vary Via Www-Authenticate X-Api-Key
		X-Content-Type-Options X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Request-Id X-Requested-With
		Anthropic-Beta Anthropic-Version Grpc-Accept-Encoding Grpc-Encoding Grpc-Timeout Traceparent Tracestate
		X-Goog-Api-Client X-Amz-Content-Sha256 X-Amz-Date X-Amz-Target X-Github-Api-Version`) {
		t[http.CanonicalHeaderKey(name)] = true
	}
	return t
}()
