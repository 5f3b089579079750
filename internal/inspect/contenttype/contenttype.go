// Package contenttype refuses bodies that are not what their type says.
package contenttype

import (
	"context"
	"fmt"
	"mime"
	"strconv"
	"strings"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/decode"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/payload"
)

// Inspector compares what a body is declared to be with what its bytes are. It
// is immutable and safe for concurrent use.
type Inspector struct {
	cfg config.ContentType
}

var _ inspect.ContentInspector = (*Inspector)(nil)

// New returns an inspector.
func New(cfg config.ContentType) *Inspector { return &Inspector{cfg: cfg} }

// Name returns "content-type".
func (in *Inspector) Name() string { return "content-type" }

// InspectContent looks at the bodies and messages that go to a server.
func (in *Inspector) InspectContent(ctx context.Context, c *inspect.Content) inspect.Result {
	if c.Direction == inspect.ToClient {
		return inspect.Done()
	}
	texts, err := payload.Of(ctx, c)
	if err != nil {
		return inspect.Done(in.finding("cannot measure: "+err.Error(), inspect.Error))
	}
	var out []inspect.Finding
	for i := range texts {
		if texts[i].Place == inspect.PlaceBody {
			out = append(out, in.body(c, texts[i].Layers)...)
		}
	}
	return inspect.Done(out...)
}

func (in *Inspector) finding(reason string, s inspect.Severity) inspect.Finding {
	f := inspect.Finding{Reason: reason, Severity: s}
	switch in.cfg.Action {
	case "flag":
		f.Action = inspect.Flagged
	case "observe":
		f.Mode = inspect.Observed
	}
	return f
}

func (in *Inspector) body(c *inspect.Content, layers []payload.Measure) []inspect.Finding {
	var out []inspect.Finding
	for i := range layers {
		declared, ok := declaredFor(c, &layers[i])
		if !ok {
			continue
		}
		if reason := in.mismatch(c, declared, &layers[i]); reason != "" {
			out = append(out, in.finding(reason, inspect.Error))
		}
	}
	for i := range layers {
		if reason := in.blob(mediaType(c.Type), &layers[i]); reason != "" {
			return append(out, in.finding(reason, inspect.Warning))
		}
	}
	return out
}

// declaredFor returns the type that a layer is declared to have. It is about
// the body without its content coding, and about each part of multipart.
func declaredFor(c *inspect.Content, m *payload.Measure) (string, bool) {
	switch {
	case m.Kind == decode.Part, m.Kind == decode.Raw && !coded(c):
		return mediaType(m.Type), true
	case m.Kind == decode.Coding && coded(c):
		return mediaType(c.Type), true
	}
	return "", false
}

func coded(c *inspect.Content) bool {
	for _, e := range c.Encoding {
		if e = strings.TrimSpace(e); e != "" && !strings.EqualFold(e, "identity") {
			return true
		}
	}
	return false
}

// mediaType returns a type without its parameters, in lower case (RFC 9110
// section 8.3.1: types are case-insensitive).
func mediaType(declared string) string {
	typ, _, err := mime.ParseMediaType(declared)
	if err != nil {
		typ, _, _ = strings.Cut(declared, ";")
	}
	return strings.ToLower(strings.TrimSpace(typ))
}

// texts are the beginnings of types that are text.
var texts = []string{
	"application/json", "application/xml", "text/", "application/x-www-form-urlencoded", "multipart/form-data",
	"application/graphql", "application/javascript", "application/x-ndjson", "application/yaml", "application/x-yaml", "application/toml", "image/svg",
}

func isText(typ string) bool {
	for _, p := range texts {
		if strings.HasPrefix(typ, p) {
			return true
		}
	}
	return strings.HasSuffix(typ, "+json") || strings.HasSuffix(typ, "+xml")
}

// mismatch compares a declared type with the bytes. A body without a type is
// taken for text unless it proves to be something else.
func (in *Inspector) mismatch(c *inspect.Content, declared string, m *payload.Measure) string {
	sniffed := m.Sniff()
	switch {
	case declared != "" && !isText(declared):
		if c.Kind == inspect.KindWindow || !provable(declared) || m.Proven() != "" && agree(declared, sniffed) {
			return ""
		}
		if sniffed == "" || agree(declared, sniffed) {
			return fmt.Sprintf("content-type mismatch: %s declared but body is something else", name(declared))
		}
	case m.IsText, declared == "" && m.Proven() != "":
		sniffed = ""
	}
	if sniffed != "" && declared != "" {
		return fmt.Sprintf("content-type mismatch: %s declared but body is %s", name(declared), sniffed)
	}
	if declared == "" && m.Proven() != "" || !m.MayExceed(in.cfg.EntropyCeiling) {
		return ""
	}
	if e := m.Entropy(); e > in.cfg.EntropyCeiling {
		return fmt.Sprintf("content-type mismatch: %s declared but body entropy is %.2f (expected <%s)", name(declared), e, number(in.cfg.EntropyCeiling))
	}
	return ""
}

// blob reports long encoded random data in text.
func (in *Inspector) blob(declared string, m *payload.Measure) string {
	if !in.cfg.DetectBase64 || m.Run.Len == 0 || m.Run.Len < in.cfg.Base64MinLen {
		return ""
	}
	return fmt.Sprintf("large %s blob (%d chars) in %s body", m.Run.Alphabet.Name, m.Run.Len, name(declared))
}

// families are types that are known by their bytes, under the names that
// senders give them.
var families = map[string]string{
	"application/x-gzip": "application/gzip", "application/x-zip-compressed": "application/zip",
	"application/gzip": "application/gzip", "application/zip": "application/zip", "application/pdf": "application/pdf",
	"audio/wav": "audio/wav", "audio/x-wav": "audio/wav", "audio/wave": "audio/wav", "font/woff2": "font/woff2", "font/woff": "font/woff",
	"image/png": "image/", "image/jpeg": "image/", "image/jpg": "image/", "image/gif": "image/", "image/webp": "image/",
}

// provable reports whether a body of a type has to prove it.
func provable(declared string) bool { return families[declared] != "" }

// agree reports whether bytes are what was declared. Images are often declared
// as one another.
func agree(declared, sniffed string) bool {
	return sniffed != "" && strings.HasPrefix(sniffed, families[declared])
}

func name(declared string) string {
	if declared == "" {
		return "no type"
	}
	return payload.Clip(declared)
}

func number(f float64) string {
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
