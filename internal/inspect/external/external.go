// Package external has what the kinds of custom inspectors share: the fields
// that they see of a piece of content, and what they may answer.
//
// A custom inspector is the user's own code and is fed by the agent. It can be
// wrong, hang, and be made to crash. Whatever is not a well-formed answer in
// time blocks, and the reason for that holds no byte of the content.
package external

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/agentcage/agentcage/internal/decode"
	"github.com/agentcage/agentcage/internal/inspect"
)

// Protocol is the version of messages and answers.
const Protocol = 1

// Values of Fields.Direction.
const (
	DirectionRequest  = "request"  // to the server
	DirectionResponse = "response" // to the client
)

// Fields are what a custom inspector sees of a piece of content, before any
// secret is put into it. Their names are a promise to users: docs/inspectors.md
// lists them.
type Fields struct {
	Direction string `json:"direction" expr:"direction"`
	Kind      string `json:"kind" expr:"kind"` // see kinds
	URL       string `json:"url" expr:"url"`   // the port is in it when it is not the scheme's own
	Scheme    string `json:"scheme" expr:"scheme"`
	Host      string `json:"host" expr:"host"` // canonical: lower case, no port, no final dot
	Port      int    `json:"port" expr:"port"`
	Method    string `json:"method" expr:"method"`
	Path      string `json:"path" expr:"path"`     // decoded once; as it is sent when that would be ambiguous
	Query     string `json:"query" expr:"query"`   // as it is sent
	Status    int    `json:"status" expr:"status"` // of a response; 0 for a request

	// Headers are pairs of name and value. Names are in canonical form and
	// sorted.
	Headers     [][2]string `json:"headers" expr:"headers"`
	ContentType string      `json:"content_type" expr:"content_type"`

	// Body is what remains when the content codings are removed. It is not
	// in the message where it is the same bytes as BodyText.
	Body        []byte  `json:"body,omitempty" expr:"-"`
	BodyText    string  `json:"body_text" expr:"body_text"` // in UTF-8, wrong bytes replaced
	BodySize    int     `json:"body_size" expr:"body_size"` // of Body, in bytes
	BodyEntropy float64 `json:"body_entropy" expr:"body_entropy"`

	PriorResults []Prior `json:"prior_results" expr:"prior_results"`
}

// Message is what an inspector is asked.
type Message struct {
	ID       uint64  `json:"id"`
	Deadline int64   `json:"deadline_ms"` // from now
	Call     string  `json:"call"`        // DirectionRequest or DirectionResponse
	Context  *Fields `json:"context"`
}

// Encode writes a message as one line. A body that is the same as its text is
// written as the text alone.
func (m Message) Encode() ([]byte, error) {
	if string(m.Context.Body) == m.Context.BodyText {
		c := *m.Context
		c.Body = nil
		m.Context = &c
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(m) // ends the line
	return b.Bytes(), err
}

// Prior is what an inspector said that was asked before, about the same piece.
type Prior struct {
	Inspector string `json:"inspector" expr:"inspector"`
	Action    string `json:"action" expr:"action"`
	Reason    string `json:"reason" expr:"reason"`
	Severity  string `json:"severity" expr:"severity"`
}

// kinds are the words for the kinds of content.
var kinds = map[inspect.Kind]string{
	inspect.KindRequest: "request", inspect.KindWindow: "window", inspect.KindMessage: "message", inspect.KindTrailer: "trailer",
	inspect.KindWebSocket: "websocket", inspect.KindResponse: "response", inspect.KindEvent: "event",
}

// Method and content type of a WebSocket message, as the original has them.
const (
	webSocketMethod = "WEBSOCKET"
	webSocketType   = "application/x-websocket-frame"
)

// FieldsOf reads a piece of content. An error says that it cannot be decoded.
func FieldsOf(ctx context.Context, c *inspect.Content) (*Fields, error) {
	f, err := HeadOf(c)
	if err == nil {
		err = f.setBody(ctx, c)
	}
	return f, err
}

// HeadOf reads everything but the body, whose fields stay empty.
func HeadOf(c *inspect.Content) (*Fields, error) {
	kind, ok := kinds[c.Kind]
	if !ok || c.Request == nil {
		return nil, fmt.Errorf("unknown kind %d of content", c.Kind)
	}
	f := &Fields{Direction: DirectionRequest, Kind: kind, Status: c.Status, Method: c.Request.Method, ContentType: c.Type}
	if c.Direction != inspect.ToServer {
		f.Direction = DirectionResponse
	}
	if c.Kind == inspect.KindWebSocket {
		f.Method, f.ContentType = webSocketMethod, webSocketType
	}
	f.setPlace(c.Request)
	f.Headers = pairs(c.Header)
	f.PriorResults = priors(c.Prior)
	return f, nil
}

func (f *Fields) setPlace(r *inspect.Request) {
	f.Scheme, f.Host, f.Port, f.Path = r.Scheme, r.Host.String(), int(r.Port), r.Path
	u := url.URL{Scheme: f.Scheme, Host: f.Host}
	if strings.Contains(f.Host, ":") && !strings.HasPrefix(f.Host, "[") {
		u.Host = "[" + f.Host + "]"
	}
	own := f.Scheme == "https" && f.Port == 443 || f.Scheme == "http" && f.Port == 80
	if !own && f.Port != 0 {
		u.Host += ":" + strconv.Itoa(f.Port)
	}
	if r.URL != nil {
		f.Query = r.URL.RawQuery
		if f.Path == "" {
			f.Path = r.EscapedPath()
		}
	}
	f.URL = u.String() + r.EscapedPath()
	if f.Query != "" {
		f.URL += "?" + f.Query
	}
}

// setBody takes what the chain has decoded already.
func (f *Fields) setBody(ctx context.Context, c *inspect.Content) error {
	if len(c.Body) == 0 {
		return nil
	}
	texts, err := c.Texts(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(texts, func(t inspect.Text) bool { return t.Place == inspect.PlaceBody })
	if i < 0 {
		return &decode.Error{Reason: "the body was not decoded"}
	}
	f.bodyFrom(texts[i].Tree.Layers, c.Encoding)
	return nil
}

func (f *Fields) bodyFrom(layers []decode.Layer, encoding []string) {
	body := 0
	for range codings(encoding) {
		if next := child(layers, body, decode.Coding); next >= 0 {
			body = next
		}
	}
	f.Body, f.BodyText = layers[body].Data, string(layers[body].Data)
	if text := child(layers, body, decode.Charset); text >= 0 {
		f.BodyText = string(layers[text].Data)
	}
	f.BodySize = len(f.Body)
	f.BodyEntropy = Entropy(f.Body)
	if !utf8.ValidString(f.BodyText) {
		f.BodyText = strings.ToValidUTF8(f.BodyText, "\uFFFD")
	}
}

// codings counts the content codings that are declared: a compressed file that
// is sent as it is stays one.
func codings(encoding []string) int {
	n := 0
	for _, value := range encoding {
		for name := range strings.SplitSeq(value, ",") {
			if name = strings.TrimSpace(name); name != "" && !strings.EqualFold(name, "identity") {
				n++
			}
		}
	}
	return n
}

// child finds the first layer of a kind that was decoded from another.
func child(layers []decode.Layer, parent int, kind decode.Kind) int {
	return slices.IndexFunc(layers, func(l decode.Layer) bool { return l.Parent == parent && l.Kind == kind })
}

func pairs(h http.Header) [][2]string {
	out := [][2]string{}
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range h[name] {
			out = append(out, [2]string{name, value})
		}
	}
	return out
}

func priors(fs []inspect.Finding) []Prior {
	out := []Prior{}
	for _, f := range fs {
		action := "flag"
		if f.Action == inspect.Blocked {
			action = "block"
		}
		out = append(out, Prior{Inspector: f.Inspector, Action: action, Reason: f.Reason, Severity: string(f.Severity)})
	}
	return out
}

// Entropy is Shannon's, in bits a byte: 0 for nothing, 8 for noise.
func Entropy(data []byte) float64 {
	if len(data) == 0 {
		return 0
	}
	var counts [256]int
	for _, b := range data {
		counts[b]++
	}
	sum := 0.0
	for _, n := range counts {
		if n > 0 {
			p := float64(n) / float64(len(data))
			sum -= p * math.Log2(p)
		}
	}
	return math.Abs(sum) // -0 of a single value
}
