// Package payloadtest makes content for the tests of the inspectors that
// measure payloads: honest traffic of many kinds, and leaks.
package payloadtest

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"

	"github.com/agentcage/agentcage/internal/decode"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

// Rand makes content. The same seed makes the same content.
type Rand struct{ *rand.Rand }

// New returns a Rand of a seed.
func New(seed uint64) *Rand { return &Rand{rand.New(rand.NewPCG(seed, 7))} }

// Bytes returns n random bytes.
func (r *Rand) Bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// Of returns n characters of an alphabet.
func (r *Rand) Of(alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}

// Hex returns n characters of hex.
func (r *Rand) Hex(n int) string { return r.Of("0123456789abcdef", n) }

// Base64 returns n random bytes as base64.
func (r *Rand) Base64(n int) string { return base64.StdEncoding.EncodeToString(r.Bytes(n)) }

// UUID returns a UUID of version 4.
func (r *Rand) UUID() string {
	b := r.Bytes(16)
	b[6], b[8] = b[6]&15|0x40, b[8]&63|0x80
	s := hex.EncodeToString(b)
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

var words = strings.Fields(`the of and to in is that for it as was with be by on not he his but at are this have from or had an they
which one you were all her she there would their we him been has when who will no more if out so up said what its about than into them can only
other time new some could these two may first then do any like my now over such our man me even most made after also did many off before must well
back through years much where your way down should because long each just state those people too mr how little good world make very year still see
work between day down three own get here think come go such last number system request response server client function return error value context
table index buffer stream reader writer parse decode encode message header token session handler middleware configuration environment deployment
container repository commit branch merge review change update delete create insert select query result user account profile setting`)

// Prose returns n words.
func (r *Rand) Prose(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString([]string{" ", " ", " ", " ", " ", ", ", ". ", "\n"}[r.IntN(8)])
		}
		b.WriteString(words[r.IntN(len(words))])
	}
	return b.String()
}

func (r *Rand) identifier() string {
	var b strings.Builder
	style := r.IntN(3)
	for i := range 1 + r.IntN(5) {
		w := words[r.IntN(len(words))]
		switch {
		case style == 0 && i > 0:
			b.WriteByte('_')
		case style == 1 && i > 0:
			w = strings.ToUpper(w[:1]) + w[1:]
		case style == 2:
			w = strings.ToUpper(w) + "_"
		}
		b.WriteString(w)
	}
	if r.IntN(5) == 0 {
		fmt.Fprintf(&b, "%d", r.IntN(100))
	}
	return b.String()
}

// Code returns lines of a program.
func (r *Rand) Code(lines int) string {
	var b strings.Builder
	for range lines {
		depth := strings.Repeat("\t", r.IntN(4))
		switch r.IntN(7) {
		case 0:
			fmt.Fprintf(&b, "%sfunc (%s *%s) %s(ctx context.Context, %s []byte) (int, error) {\n", depth, r.Of("abcxyz", 1), r.identifier(), r.identifier(), r.identifier())
		case 1:
			fmt.Fprintf(&b, "%sif err := %s.%s(%s, %q); err != nil {\n", depth, r.identifier(), r.identifier(), r.identifier(), r.Prose(3))
		case 2:
			fmt.Fprintf(&b, "%s// %s\n", depth, r.Prose(9))
		case 3:
			fmt.Fprintf(&b, "%s%s = %s[%d:%s] + 0x%s\n", depth, r.identifier(), r.identifier(), r.IntN(1000), r.identifier(), r.Hex(8))
		case 4:
			fmt.Fprintf(&b, "import %s from '@%s/%s/lib/%s/%s.js';\n", r.identifier(), r.identifier(), r.identifier(), r.identifier(), r.identifier())
		case 5:
			fmt.Fprintf(&b, "%sreturn fmt.Errorf(\"cannot %s: %%w\", %s)\n", depth, r.Prose(2), r.identifier())
		default:
			fmt.Fprintf(&b, "%s/usr/lib/%s/%s/%s/%s/%s\n", depth, r.identifier(), r.identifier(), r.identifier(), r.identifier(), r.identifier())
		}
	}
	return b.String()
}

// Picture returns an image that looks like a photograph: areas, a gradient,
// and the noise of a sensor.
func (r *Rand) Picture(w, h int) image.Image {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	fx, fy, ph := 2+r.Float64()*8, 2+r.Float64()*8, r.Float64()*6
	for y := range h {
		for x := range w {
			v := 128 + 90*math.Sin(fx*float64(x)/float64(w)+ph)*math.Cos(fy*float64(y)/float64(h))
			n := r.NormFloat64() * 6
			m.SetRGBA(x, y, color.RGBA{clamp(v + n), clamp(v*0.8 + n), clamp(255 - v + n), 255})
		}
	}
	return m
}

func clamp(f float64) uint8 { return uint8(max(0, min(255, f))) }

// PNG returns a picture as PNG.
func (r *Rand) PNG(w, h int) []byte {
	var b bytes.Buffer
	must(png.Encode(&b, r.Picture(w, h)))
	return b.Bytes()
}

// JPEG returns a picture as JPEG.
func (r *Rand) JPEG(w, h int) []byte {
	var b bytes.Buffer
	must(jpeg.Encode(&b, r.Picture(w, h), &jpeg.Options{Quality: 60 + r.IntN(39)}))
	return b.Bytes()
}

// GIF returns a picture as GIF.
func (r *Rand) GIF(w, h int) []byte {
	var b bytes.Buffer
	must(gif.Encode(&b, r.Picture(w, h), nil))
	return b.Bytes()
}

// Gzip compresses.
func Gzip(data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(data)
	must(err)
	must(z.Close())
	return b.Bytes()
}

// Zlib compresses.
func Zlib(data []byte) []byte {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	_, err := z.Write(data)
	must(err)
	must(z.Close())
	return b.Bytes()
}

// Files returns the names and contents of the files of a package.
func (r *Rand) Files() map[string][]byte {
	out := map[string][]byte{}
	for i := range 3 + r.IntN(8) {
		out[fmt.Sprintf("package/%s_%d.js", r.identifier(), i)] = []byte(r.Code(20 + r.IntN(200)))
	}
	out["package/icon.png"] = r.PNG(24+r.IntN(40), 24+r.IntN(40))
	out["package/README.md"] = []byte(r.Prose(300))
	return out
}

// Tar returns an archive.
func Tar(files map[string][]byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range sorted(files) {
		must(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name]))}))
		_, err := w.Write(files[name])
		must(err)
	}
	must(w.Close())
	return b.Bytes()
}

// Zip returns an archive.
func Zip(files map[string][]byte) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range sorted(files) {
		f, err := w.Create(name)
		must(err)
		_, err = f.Write(files[name])
		must(err)
	}
	must(w.Close())
	return b.Bytes()
}

func sorted(files map[string][]byte) []string {
	var names []string
	for n := range files {
		names = append(names, n)
	}
	for i := range names {
		for j := i; j > 0 && names[j] < names[j-1]; j-- {
			names[j], names[j-1] = names[j-1], names[j]
		}
	}
	return names
}

// PDF returns a document of one page with text, a picture and a font.
func (r *Rand) PDF() []byte {
	var b bytes.Buffer
	b.WriteString("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
	n := 0
	object := func(dict string, stream []byte) {
		n++
		fmt.Fprintf(&b, "%d 0 obj\n<< %s /Length %d >>\n", n, dict, len(stream))
		if stream != nil {
			b.WriteString("stream\n")
			b.Write(stream)
			b.WriteString("\nendstream\n")
		}
		b.WriteString("endobj\n")
	}
	object("/Type /Catalog /Pages 2 0 R", nil)
	object("/Type /Pages /Kids [3 0 R] /Count 1", nil)
	object("/Filter /FlateDecode", Zlib([]byte("BT /F1 12 Tf ("+r.Prose(400+r.IntN(2000))+") Tj ET")))
	object("/Type /XObject /Subtype /Image /Filter /DCTDecode", r.JPEG(60+r.IntN(60), 60+r.IntN(60)))
	object("/FunctionType 4 /Filter [/FlateDecode]", Zlib([]byte(r.Code(60))))
	fmt.Fprintf(&b, "xref\n0 %d\n", n+1)
	for i := range n + 1 {
		fmt.Fprintf(&b, "%010d 00000 n \n", i*173)
	}
	fmt.Fprintf(&b, "trailer << /Size %d /Root 1 0 R /ID [<%s><%s>] >>\nstartxref\n%d\n%%%%EOF\n", n+1, r.Hex(32), r.Hex(32), b.Len())
	return b.Bytes()
}

// Object is one object of a git pack.
type Object struct {
	Kind byte // 1 commit, 2 tree, 3 blob
	Data []byte
}

// Pack returns the body of a git push with the objects given.
func (r *Rand) Pack(objects ...Object) []byte {
	var p bytes.Buffer
	p.WriteString("PACK")
	must(binary.Write(&p, binary.BigEndian, []uint32{2, uint32(len(objects))}))
	for _, o := range objects {
		size := len(o.Data)
		b := o.Kind<<4 | byte(size&15)
		for size >>= 4; size > 0; size >>= 7 {
			p.WriteByte(b | 0x80)
			b = byte(size & 0x7f)
		}
		p.WriteByte(b)
		p.Write(Zlib(o.Data))
	}
	sum := sha1.Sum(p.Bytes())
	p.Write(sum[:])
	line := fmt.Sprintf("%s %s refs/heads/main\x00 report-status-v2 side-band-64k object-format=sha1 agent=git/2.47.0", strings.Repeat("0", 40), r.Hex(40))
	return append([]byte(fmt.Sprintf("%04x%s0000", len(line)+4, line)), p.Bytes()...)
}

// Objects returns the objects of a push of a few files.
func (r *Rand) Objects() []Object {
	var out []Object
	var tree bytes.Buffer
	for i := range 2 + r.IntN(6) {
		out = append(out, Object{3, []byte(r.Code(10 + r.IntN(100)))})
		fmt.Fprintf(&tree, "100644 %s%d.go\x00", r.identifier(), i)
		tree.Write(r.Bytes(20))
	}
	out = append(out, Object{3, r.JPEG(50, 50)}, Object{2, tree.Bytes()})
	commit := fmt.Sprintf("tree %s\nparent %s\nauthor A <a@example.com> 1700000000 +0000\n\n%s", r.Hex(40), r.Hex(40), r.Prose(20))
	return append(out, Object{1, []byte(commit)})
}

// JWT returns a signed token.
func (r *Rand) JWT(signature int) string {
	enc := base64.RawURLEncoding.EncodeToString
	head := enc([]byte(`{"alg":"RS256","typ":"JWT","kid":"` + r.Of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", 27) + `"}`))
	claims := enc(Marshal(map[string]any{"iss": "https://login.example.com/", "sub": "auth0|" + r.Hex(24), "aud": []string{"https://api.example.com"}, "exp": 1700000000 + r.IntN(1e6), "scope": "openid profile email", "jti": r.UUID()}))
	return head + "." + claims + "." + enc(r.Bytes(signature))
}

// SourceMap returns a source map.
func (r *Rand) SourceMap() []byte {
	var m strings.Builder
	for range 300 + r.IntN(1500) {
		for range 1 + r.IntN(5) {
			m.WriteString([]string{"A", "C", "E", "I", "M", "Q", "U", "Y", "gB", "oB", "kC"}[r.IntN(11)])
			m.WriteString([]string{"AA", "AC", "AD", "AE"}[r.IntN(4)])
			m.WriteString([]string{"A", "C", "E", "I", "gB", "SA", "KA"}[r.IntN(7)])
			m.WriteByte(',')
		}
		m.WriteByte(";,,"[r.IntN(3)])
	}
	return Marshal(map[string]any{"version": 3, "sources": []string{"webpack://app/./src/" + r.identifier() + ".ts"}, "mappings": m.String(), "sourcesContent": []string{r.Code(100)}, "names": strings.Fields(r.Prose(40))})
}

// Lock returns a lock file of npm.
func (r *Rand) Lock(n int) []byte {
	packages := map[string]any{}
	for range n {
		sum := r.Base64(64)
		packages["node_modules/"+r.identifier()] = map[string]any{"version": fmt.Sprintf("%d.%d.%d", r.IntN(9), r.IntN(30), r.IntN(30)), "resolved": "https://registry.example/" + r.identifier() + ".tgz", "integrity": "sha512-" + sum}
	}
	return Marshal(map[string]any{"lockfileVersion": 3, "packages": packages})
}

// Minified returns a program without blanks.
func (r *Rand) Minified() string {
	var b strings.Builder
	for range 200 + r.IntN(500) {
		v := func() string { return r.Of("abcdefghijklmnopqrstuvwxyz", 1+r.IntN(2)) }
		switch r.IntN(5) {
		case 0:
			fmt.Fprintf(&b, "function %s(%s,%s){return %s.%s(%s)}", v(), v(), v(), v(), r.identifier(), v())
		case 1:
			fmt.Fprintf(&b, "var %s=%s[%d],%s=%s&&!%s?%d:%s;", v(), v(), r.IntN(99), v(), v(), v(), r.IntN(1000), v())
		case 2:
			fmt.Fprintf(&b, "if(%s>=%d||%s!==null)throw Error(%s(%d));", v(), r.IntN(50), v(), v(), r.IntN(900))
		case 3:
			fmt.Fprintf(&b, "%s.prototype.%s=function(%s){for(var %s=0;%s<%s.length;%s++)this.%s[%s]|=%s<<%d};", v(), r.identifier(), v(), v(), v(), v(), v(), r.identifier(), v(), v(), r.IntN(31))
		default:
			fmt.Fprintf(&b, "e.exports={%s:%s,%s:t(%d)},", r.identifier(), v(), r.identifier(), r.IntN(99999))
		}
	}
	return b.String()
}

// Protobuf returns a message of spans as OTLP has them.
func (r *Rand) Protobuf() []byte {
	var b []byte
	field := func(n int, data []byte) {
		b = binary.AppendUvarint(b, uint64(n)<<3|2)
		b = binary.AppendUvarint(b, uint64(len(data)))
		b = append(b, data...)
	}
	for range 20 + r.IntN(60) {
		field(1, r.Bytes(16))
		field(2, r.Bytes(8))
		field(5, []byte("GET /"+r.identifier()))
		b = append(b, 0x39)
		b = binary.LittleEndian.AppendUint64(b, 1700000000000000000+r.Uint64N(1e15))
		for range 4 {
			field(9, []byte("\x0a\x0b"+"http.method"+"\x12\x05\x0a\x03"+r.identifier()))
		}
	}
	return b
}

// Marshal is json.Marshal without an error.
func Marshal(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	must(e.Encode(v))
	return bytes.TrimSpace(b.Bytes())
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Request returns the content of a request, decoded as internal/decode
// does it.
func Request(method, target string, header map[string]string, body []byte) *inspect.Content {
	u, err := url.Parse(target)
	must(err)
	h := http.Header{}
	for k, v := range header {
		h.Set(k, v)
	}
	host, err := hostname.Parse(u.Hostname())
	must(err)
	c := &inspect.Content{
		Request: &inspect.Request{Method: method, Scheme: "https", Host: host, Port: 443, Path: u.Path, URL: u, Header: h},
		Kind:    inspect.KindRequest, Direction: inspect.ToServer, Header: h, Type: h.Get("Content-Type"), Body: body,
	}
	if e := h.Get("Content-Encoding"); e != "" {
		c.Encoding = []string{e}
	}
	return c
}

// Tree returns the tree of layers that a body has: the body itself, and what
// is given.
func Tree(typ string, body []byte, layers ...decode.Layer) *decode.Tree {
	t := &decode.Tree{Layers: []decode.Layer{{Kind: decode.Raw, Parent: -1, Type: typ, Data: body}}}
	t.Layers = append(t.Layers, layers...)
	return t
}

// Chat returns a request to a language model with the parts given beside its
// text.
func (r *Rand) Chat(parts ...any) []byte {
	messages := []any{}
	for i := range 3 + r.IntN(12) {
		role := []string{"user", "assistant"}[i%2]
		content := []any{map[string]any{"type": "text", "text": r.Prose(20+r.IntN(150)) + "\n```go\n" + r.Code(r.IntN(40)) + "```"}}
		if role == "assistant" {
			content = append(content, map[string]any{"type": "tool_use", "id": "toolu_01" + r.Of("abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ123456789", 22), "name": "bash", "input": map[string]any{"command": r.identifier() + " -x " + r.identifier()}})
		}
		messages = append(messages, map[string]any{"role": role, "content": content})
	}
	messages = append(messages, map[string]any{"role": "user", "content": parts})
	return Marshal(map[string]any{"model": "model-1", "max_tokens": 8192, "messages": messages})
}

// SHA256 returns the hash of a random text in hex.
func (r *Rand) SHA256() string {
	s := sha256.Sum256(r.Bytes(8))
	return hex.EncodeToString(s[:])
}
