package decode

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

const secret = "sk-proj-Abc_123/x+y=Kv0o"

// layersOf decodes, and checks what holds of every tree.
func layersOf(t *testing.T, in Input) []Layer {
	t.Helper()
	tree, err := Decode(context.Background(), in, Limits{})
	if err != nil {
		t.Fatalf("cannot decode %.300q: %v", in.Data, err)
	}
	checkTree(t, in, tree)
	return tree.Layers
}

func checkTree(t *testing.T, in Input, tree *Tree) {
	t.Helper()
	raw := tree.Layers[0]
	if raw.Kind != Raw || raw.Parent != -1 || string(raw.Data) != string(in.Data) {
		t.Fatalf("the first layer is not the input: %+v", raw)
	}
	for i, l := range tree.Layers[1:] {
		if l.Parent < 0 || l.Parent > i || l.Kind == Raw || len(l.Data) == 0 {
			t.Fatalf("layer %d is malformed: %+v", i+1, l)
		}
		if parent := tree.Layers[l.Parent].Data; l.Start < 0 || l.End < l.Start || l.End > len(parent) {
			t.Fatalf("layer %d (%d) is from %d to %d of %d bytes", i+1, l.Kind, l.Start, l.End, len(parent))
		}
	}
}

// finds reports whether a layer other than the raw one holds a text.
func findsIn(layers []Layer, text string) bool {
	for _, l := range layers[1:] {
		if strings.Contains(string(l.Data), text) {
			return true
		}
	}
	return false
}

// atStart are wrappers that are only known at the beginning of a layer.
var atStart = map[string]bool{"zlib": true, "utf-16 marked": true, "utf-32 marked": true}

// noASCII are wrappers after which UTF-16 is not known by its zero bytes.
var noASCII = map[string]bool{"full width": true, "mathematical": true, "monospace": true, "circled": true, "tags": true}

func TestWrappers(t *testing.T) {
	for _, w := range append(append([]wrapper{}, wrappers...), folded...) {
		for _, around := range [][2]string{{"", ""}, {`{"a":"`, `"}`}, {"text before ", " and behind"}} {
			if around[0] != "" && atStart[w.name] {
				continue
			}
			data := around[0] + w.wrap(secret) + around[1]
			if strings.Contains(data, secret) {
				continue // nothing of it had to be wrapped
			}
			if !findsIn(layersOf(t, Input{Data: []byte(data)}), secret) {
				t.Errorf("%s in %q: the secret is not found in %.200q", w.name, around, data)
			}
		}
	}
}

func TestPairsOfWrappers(t *testing.T) {
	for _, inner := range append(append([]wrapper{}, wrappers...), folded...) {
		for _, outer := range wrappers {
			if inner.binary && !strings.Contains("gzip zlib zstd", outer.name) && !takesBinary(outer.name) {
				continue
			}
			if strings.HasPrefix(outer.name, "utf-") && noASCII[inner.name] {
				continue
			}
			data := outer.wrap(inner.wrap(secret))
			if strings.Contains(data, secret) {
				continue
			}
			if !findsIn(layersOf(t, Input{Data: []byte(data)}), secret) {
				t.Errorf("%s in %s: the secret is not found in %.300q", inner.name, outer.name, data)
			}
		}
	}
}

func takesBinary(name string) bool {
	return strings.HasPrefix(name, "base") || strings.HasPrefix(name, "hex") || strings.HasPrefix(name, "gzip") ||
		name == "percent all" || name == "js x" || name == "c octal" || name == "quoted-printable"
}

func reasonOf(t *testing.T, in Input, limits Limits) string {
	t.Helper()
	_, err := Decode(context.Background(), in, limits)
	if err == nil {
		return ""
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("not an *Error: %v", err)
	}
	return e.Reason
}

// TestBareDeflate: it is found at the beginning of what digits decode to, a bomb
// is refused as any other, and random bytes are hardly ever taken for it.
func TestBareDeflate(t *testing.T) {
	for _, w := range wrappers {
		if digits := strings.HasPrefix(w.name, "base") || strings.HasPrefix(w.name, "hex"); !digits || strings.Contains(w.name, "lines") || w.name == "base64 pem" || w.name == "base64 in a path" {
			continue // there is something before it
		}
		for _, end := range []string{"", "\x00\x01"} {
			data := w.wrap(flateOf(secret) + end)
			if !findsIn(layersOf(t, Input{Data: []byte(`{"a":"` + data + `"}`)}), secret) {
				t.Errorf("in %s with %q behind it: the secret is not found in %q", w.name, end, data)
			}
		}
	}
	bomb := flateOf(strings.Repeat("a", 20<<20))
	if got := reasonOf(t, Input{Data: []byte(bomb)}, Limits{}); got != "the content expands too much" {
		t.Errorf("a bomb: %q", got)
	}
	r := rand.New(rand.NewPCG(1, 1))
	taken := 0
	for range 20000 {
		noise := make([]byte, minDeflated+r.IntN(200))
		for i := range noise {
			noise[i] = byte(r.Uint32())
		}
		for _, l := range layersOf(t, Input{Data: noise}) {
			if l.Name == "deflate" {
				taken++
			}
		}
	}
	if taken > 10 {
		t.Errorf("%d of 20,000 are taken for deflate", taken)
	}
}

// TestDeclared is rule 45: what a Content-Encoding says is undone, stacked and
// spelled in any way, and what it does not say truly blocks.
func TestDeclared(t *testing.T) {
	body := "the secret is " + secret + strings.Repeat(" and so on", 30)
	chunked := func(s string) string {
		return fmt.Sprintf("%x;chunk-signature=ab\r\n%s\r\n%x\r\n%s\r\n0;chunk-signature=cd\r\nx-amz-trailer:1\r\n\r\n", 10, s[:10], len(s)-10, s[10:])
	}
	for name, c := range map[string]struct {
		encoding []string
		body     string
		reason   string
	}{
		"none":                {nil, body, ""},
		"identity":            {[]string{"identity"}, body, ""},
		"gzip":                {[]string{"gzip"}, gzipOf(body), ""},
		"x-gzip":              {[]string{"X-GZIP"}, gzipOf(body), ""},
		"zlib":                {[]string{"deflate"}, zlibOf(body), ""},
		"bare deflate":        {[]string{"deflate"}, flateOf(body), ""},
		"br":                  {[]string{"br"}, brotliOf(body), ""},
		"zstd":                {[]string{"zstd"}, zstdOf(body), ""},
		"two zstd frames":     {[]string{"zstd"}, zstdOf(body[:30]) + zstdOf(body[30:]), ""},
		"aws-chunked":         {[]string{"aws-chunked"}, chunked(body), ""},
		"aws-chunked, gzip":   {[]string{"gzip,aws-chunked"}, chunked(gzipOf(body)), ""},
		"two members":         {[]string{"gzip"}, gzipOf(body[:20]) + gzipOf(body[20:]), ""},
		"stacked":             {[]string{" gzip ,, identity", "BR\t"}, brotliOf(gzipOf(body)), ""},
		"three":               {[]string{"zstd", "deflate", "gzip"}, gzipOf(zlibOf(zstdOf(body))), ""},
		"no body":             {[]string{"gzip"}, "", ""},
		"wrong order":         {[]string{"br, gzip"}, brotliOf(gzipOf(body)), "the content does not match its content coding"},
		"unknown":             {[]string{"gzip, quux"}, gzipOf(body), "the content coding is unknown"},
		"compress":            {[]string{"compress"}, body, "the content coding is unknown"},
		"plain as gzip":       {[]string{"gzip"}, body, "the content does not match its content coding"},
		"plain as br":         {[]string{"br"}, body, "the content does not match its content coding"},
		"plain as deflate":    {[]string{"deflate"}, body, "the content does not match its content coding"},
		"plain as zstd":       {[]string{"zstd"}, body, "the content does not match its content coding"},
		"plain as chunks":     {[]string{"aws-chunked"}, body, "the content does not match its content coding"},
		"gzip cut":            {[]string{"gzip"}, gzipOf(body)[:60], "the content does not match its content coding"},
		"gzip without sum":    {[]string{"gzip"}, gzipOf(body)[:len(gzipOf(body))-8] + "12345678", "the content does not match its content coding"},
		"gzip and more":       {[]string{"gzip"}, gzipOf(body) + secret, "the content does not match its content coding"},
		"gzip and zeros":      {[]string{"gzip"}, gzipOf(body) + "\x00\x00\x00\x00", "the content does not match its content coding"},
		"zlib and more":       {[]string{"deflate"}, zlibOf(body) + secret, "the content does not match its content coding"},
		"bare and more":       {[]string{"deflate"}, flateOf(body) + secret, "the content does not match its content coding"},
		"br and more":         {[]string{"br"}, brotliOf(body) + secret, "the content does not match its content coding"},
		"br cut":              {[]string{"br"}, brotliOf(body)[:40], "the content does not match its content coding"},
		"zstd and more":       {[]string{"zstd"}, zstdOf(body) + secret, "the content does not match its content coding"},
		"zstd cut":            {[]string{"zstd"}, zstdOf(body)[:40], "the content does not match its content coding"},
		"chunks and more":     {[]string{"aws-chunked"}, chunked(body) + "x", "the content does not match its content coding"},
		"chunk of wrong size": {[]string{"aws-chunked"}, "5\r\nabcdefgh\r\n0\r\n\r\n", "the content does not match its content coding"},
		"gzip ten times": {[]string{strings.Repeat("gzip,", 10)}, func(s string) string {
			for range 10 {
				s = gzipOf(s)
			}
			return s
		}(body), "the content is nested too deeply"},
	} {
		in := Input{Data: []byte(c.body), Encoding: c.encoding}
		if reason := reasonOf(t, in, Limits{}); reason != c.reason {
			t.Errorf("%s: %q, want %q", name, reason, c.reason)
			continue
		}
		if c.reason == "" && c.body != "" && c.body != body && !findsIn(layersOf(t, in), body) {
			t.Errorf("%s: the text is in no layer", name)
		}
	}
}

// TestBombs is rule 47 and peer-holes D4: a bound that is passed blocks,
// declared or not, and at any depth.
func TestBombs(t *testing.T) {
	zeros := strings.Repeat("\x00", 8<<20)
	nested := zeros
	for range 3 {
		nested = gzipOf(nested)
	}
	window := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0, 0} // a window of 2 GiB
	quine := gzipOf(gzipOf(gzipOf(gzipOf("short"))))
	zipped := zipOf(t, map[string]string{"a": zeros, "b": zeros, "c": zeros})
	for name, c := range map[string]struct {
		in     Input
		limits Limits
		reason string
	}{
		"gzip":         {Input{Data: []byte(gzipOf(zeros)), Encoding: []string{"gzip"}}, Limits{}, "the content expands too much"},
		"br":           {Input{Data: []byte(brotliOf(zeros)), Encoding: []string{"br"}}, Limits{}, "the content expands too much"},
		"zstd":         {Input{Data: []byte(zstdOf(zeros)), Encoding: []string{"zstd"}}, Limits{}, "the content expands too much"},
		"deflate":      {Input{Data: []byte(zlibOf(zeros)), Encoding: []string{"deflate"}}, Limits{}, "the content expands too much"},
		"zstd window":  {Input{Data: window, Encoding: []string{"zstd"}}, Limits{}, "the content does not match its content coding"},
		"undeclared":   {Input{Data: []byte("x" + gzipOf(zeros))}, Limits{}, "the content expands too much"},
		"in base64":    {Input{Data: []byte(base64.StdEncoding.EncodeToString([]byte(gzipOf(zeros))))}, Limits{}, "the content expands too much"},
		"nested":       {Input{Data: []byte(nested)}, Limits{}, "the content expands too much"},
		"zip":          {Input{Data: []byte(zipped)}, Limits{}, "the content expands too much"},
		"size":         {Input{Data: []byte(gzipOf(strings.Repeat(quote(secret), 1000)))}, Limits{Bytes: 10_000}, "the content decodes to too much"},
		"layers":       {Input{Data: []byte(strings.Repeat(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("text ", 40)))+" ", 1))}, Limits{Layers: 1}, "the content has too many layers"},
		"depth":        {Input{Data: []byte(quine)}, Limits{Depth: 4}, "the content is nested too deeply"},
		"many kinds":   {Input{Data: dense(1 << 20)}, Limits{}, "the content decodes to too much"},
		"few of them":  {Input{Data: dense(16 << 10)}, Limits{}, ""},
		"small zeros":  {Input{Data: []byte(gzipOf(zeros[:1<<20])), Encoding: []string{"gzip"}}, Limits{}, ""},
		"honest ratio": {Input{Data: []byte(gzipOf(string(chat(4 << 20)))), Encoding: []string{"gzip"}}, Limits{Ratio: 10_000}, ""},
	} {
		if reason := reasonOf(t, c.in, c.limits); reason != c.reason {
			t.Errorf("%s: %q, want %q", name, reason, c.reason)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Decode(ctx, Input{Data: []byte(percentAll(secret))}, Limits{}); err == nil {
		t.Error("a context that ended is no error")
	}
	if reason := reasonOf(t, Input{Data: []byte(gzipOf(string(chat(1 << 20))))}, Limits{Ratio: 10_000, Time: time.Nanosecond}); reason != "decoding the content took too long" {
		t.Errorf("out of time: %q", reason)
	}
}

// TestDepth holds that nesting is followed or refused, and that what only looks
// nested is neither.
func TestDepth(t *testing.T) {
	text := secret
	for n := 1; n <= 10; n++ {
		text = base64.StdEncoding.EncodeToString([]byte(text))
		tree, err := Decode(context.Background(), Input{Data: []byte(text)}, Limits{})
		if n < 8 && (err != nil || !findsIn(tree.Layers, secret)) {
			t.Errorf("base64 %d times: not found (%v)", n, err)
		}
		if n >= 8 && err == nil {
			t.Errorf("base64 %d times is not refused", n)
		}
	}
	for _, honest := range []string{
		strings.Repeat(`\`, 1000),
		strings.Repeat(`\ /\ `, 300),
		quote(strings.Repeat(`\`, 64)),
		quote(quote(quote("C:\\Users\\name\\AppData"))),
		strings.Repeat("%", 1000),
		strings.Repeat("&", 1000) + strings.Repeat("=", 1000),
		strings.Repeat("A", 5000), strings.Repeat("0", 5000), strings.Repeat("a", 5000),
	} {
		layersOf(t, Input{Data: []byte(honest)})
	}
}

// TestBait holds that an escape in front of a secret that another wrapper hides
// does not eat the secret's beginning for us alone: each case is read by its
// receiver as the secret.
func TestBait(t *testing.T) {
	const hexSecret = "fc-0123456789abcdef0123456789abcdef"
	std := func(s string) string { return base64.RawStdEncoding.EncodeToString([]byte(s)) }
	for name, c := range map[string]struct{ data, want string }{
		"percent before json":     {`{"a":"%fc-0123456789\u0061bcdef0123456789abcdef"}`, hexSecret},
		"json before percent":     {`\fc-0123456789%61bcdef0123456789abcdef`, hexSecret},
		"json pair":               {`\\npm_\u0041bcdefgh`, `\npm_Abcdefgh`},
		"reference before json":   {`&#xfc-0123456789\u0061bcdef0123456789abcdef`, hexSecret},
		"quoted before percent":   {`=fc-0123456789%61bcdef0123456789abcdef`, hexSecret},
		"percent before quoted":   {`%fc-0123456789=61bcdef0123456789abcdef`, hexSecret},
		"percent before base64":   {"%" + std("sk-proj-0123456789"), "sk-proj-0123456789"},
		"json before base64":      {`{"a":"x\` + std("npm_0123456789abcdef") + `"}`, "npm_0123456789abcdef"},
		"unicode before base64":   {`\u0041` + std("npm_0123456789abcdef"), "npm_0123456789abcdef"},
		"reference before hex":    {"&#x" + hex.EncodeToString([]byte("sk-proj-0123456789")), "sk-proj-0123456789"},
		"percent before hex":      {"%" + hex.EncodeToString([]byte("sk-proj-0123456789")), "sk-proj-0123456789"},
		"percent before pairs":    {"%" + pairs("sk-proj-0123456789", "", ":"), "sk-proj-0123456789"},
		"json before numbers":     {`\` + pairs("sk-proj-0123456789", "0x", ", "), "sk-proj-0123456789"},
		"fold before percent":     {"%fc-0123456789\u200babcdef0123456789abcdef", hexSecret},
		"base64 inside of a run":  {std("a harmless text, of some length") + "A" + std("sk-proj-0123456789abcdef"), "sk-proj-0123456789abcdef"},
		"behind an image":         {std("\x89PNG\r\n\x1a\n"+noise(900)) + std("sk-proj-0123456789abcdef"), "sk-proj-0123456789abcdef"},
		"folded, behind an image": {std("\x89PNG\r\n\x1a\n"+noise(901)) + std(folded[0].wrap("sk-proj-0123456789abcdef")), "sk-proj-0123456789abcdef"},
		"zipped, behind an image": {std("\x89PNG\r\n\x1a\n"+noise(899)) + std(zlibOf("sk-proj-0123456789abcdef")), "sk-proj-0123456789abcdef"},
		"gzip, behind a word":     {"word" + std(gzipOf("sk-proj-0123456789abcdef")), "sk-proj-0123456789abcdef"},
	} {
		tree, err := Decode(context.Background(), Input{Data: []byte(c.data)}, Limits{})
		if err != nil || !findsIn(tree.Layers, c.want) {
			t.Errorf("%s: %q is not found in %.200q (%v)", name, c.want, c.data, err)
		}
	}
}

func noise(n int) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return string(b)
}

// TestNothing holds that what decodes to nothing has no layers: words, paths,
// identifiers, noise.
func TestNothing(t *testing.T) {
	for _, text := range []string{
		"", "a", "application/json", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		"internal/config/testdata/bad_alias_bomb", "getElementsByClassNameAndAttribute", "/usr/lib/python3/dist-packages/yaml",
		"123e4567-e89b-12d3-a456-426614174000", "d41d8cd98f00b204e9800998ecf8427e", "a b c d e f",
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "x = a[i] & b[j]; y = 100 % 7",
		"if a && b { c := &d }", "C:\\Windows\\System", "敏捷的棕色狐狸跳过了懒狗", "Быстрая лиса", "1+1=2", "2026-11-24T06:15:19Z",
	} {
		if l := layersOf(t, Input{Data: []byte(text)}); len(l) != 1 {
			t.Errorf("%q has %d layers, the second is %q", text, len(l), l[1].Data)
		}
	}
	for seed := range 20 {
		b := make([]byte, 100_000)
		_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
		layers, size := layersOf(t, Input{Data: b}), 0
		for _, l := range layers[1:] {
			size += len(l.Data)
		}
		if len(layers) > 15 || size > len(b)/4 {
			t.Errorf("noise of %d bytes has %d layers of %d bytes", len(b), len(layers), size)
		}
	}
}

// TestPlainAgrees holds that what is called plain has a tree of one layer.
func TestPlainAgrees(t *testing.T) {
	for _, w := range append(append([]wrapper{}, wrappers...), folded...) {
		data := []byte(w.wrap(secret))
		if bytes.Contains(data, []byte(secret)) {
			continue
		}
		if Plain(data) {
			t.Errorf("%s: %q is called plain", w.name, data)
		}
	}
	for _, text := range []string{"", "GET", "application/json", "gzip, deflate, br", "en-US,en;q=0.5", "a=b&c=d"} {
		if !Plain([]byte(text)) {
			t.Errorf("%q is not called plain", text)
		}
	}
}

// TestCharsets is rule 44: the declared character set, and never instead of the
// raw bytes.
func TestCharsets(t *testing.T) {
	text := "the key is " + secret
	ebcdic := []byte{0xd2, 0xc5, 0xe8, 0x60, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8} // KEY-12345678
	utf7 := each(text, func(r rune) string {
		return "+" + base64.RawStdEncoding.EncodeToString([]byte(utf16Of(string(r), binary.BigEndian))) + "-"
	})
	for name, c := range map[string]struct{ kind, data, want, reason string }{
		"utf-8":          {"text/plain; charset=UTF-8", text, "", ""},
		"utf-16":         {"text/plain; charset=utf-16", utf16Of(text, binary.LittleEndian), text, ""},
		"utf-16be":       {"application/json;charset=\"UTF-16BE\"", utf16Of(text, binary.BigEndian), text, ""},
		"utf-16, ascii":  {"text/plain; charset=utf-16", text, "", ""},
		"full width":     {"text/plain; charset=utf-16le", utf16Of(folded[0].wrap(secret), binary.LittleEndian), secret, ""},
		"utf-32":         {"text/plain; charset=utf-32", utf32Of(text, binary.LittleEndian), text, ""},
		"utf-7":          {"text/plain; charset=UTF-7", utf7, text, ""},
		"ebcdic":         {"text/plain; charset=IBM037", string(ebcdic), "KEY-12345678", ""},
		"latin-1":        {"text/plain; charset=iso-8859-1", "caf\xe9 " + secret, "café " + secret, ""},
		"shift_jis":      {"text/plain; charset=shift_jis", "\x82\xa0" + secret, "あ" + secret, ""},
		"binary":         {"application/octet-stream; charset=binary", text, "", ""},
		"unknown":        {"text/plain; charset=quux", text, "", "the character set is unknown"},
		"two":            {"text/plain; charset=utf-8; charset=utf-16", text, "", "the character set is unknown"},
		"replacement":    {"text/plain; charset=hz-gb-2312", text, "", ""},
		"malformed type": {"text/plain;; charset = utf-16le", utf16Of(text, binary.LittleEndian), text, ""},
	} {
		in := Input{Data: []byte(c.data), Type: c.kind}
		if reason := reasonOf(t, in, Limits{}); reason != c.reason {
			t.Errorf("%s: %q, want %q", name, reason, c.reason)
			continue
		}
		if c.want != "" && !findsIn(layersOf(t, in), c.want) {
			t.Errorf("%s: the text is in no layer", name)
		}
	}
}

// TestMultipart reads parts as their own headers say, and those of broken
// messages, too.
func TestMultipart(t *testing.T) {
	std := base64.StdEncoding.EncodeToString([]byte("short key"))
	body := "preamble\r\n--b\r\nContent-Disposition: form-data; name=\"n1\"\r\n\r\nvalue\r\n" +
		"--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\nContent-Type: text/plain; charset=utf-16le\r\n\r\n" +
		utf16Of(folded[0].wrap(secret), binary.LittleEndian) + "\r\n" +
		"--b\nContent-Transfer-Encoding: BASE64\n\n" + std[:3] + "\n" + std[3:] + "\n" +
		"--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nq=20r=\r\ns\r\n" +
		"--b\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\na=BEGIN+KEY+END\r\n" +
		"--b\r\nContent-Type: multipart/mixed; boundary=inner\r\n\r\n--inner\r\n\r\ninnermost\r\n--inner--\r\n--b--\r\nepilogue"
	for name, c := range map[string]struct{ kind, data string }{
		"whole":        {`multipart/form-data; boundary=b`, body},
		"quoted":       {`Multipart/Form-Data; boundary="b"`, body},
		"cut":          {`multipart/form-data; boundary=b`, strings.TrimSuffix(body, "--b--\r\nepilogue")},
		"bare lf":      {`multipart/form-data; boundary=b`, strings.ReplaceAll(body, "\r\n--b", "\n--b")},
		"two boundary": {`multipart/form-data; boundary=b; boundary=b`, body},
	} {
		layers := layersOf(t, Input{Data: []byte(c.data), Type: c.kind})
		for _, want := range []string{"value", secret, "short key", "q rs", "BEGIN KEY END", "innermost"} {
			found := false
			for _, l := range layers[1:] {
				found = found || strings.Contains(string(l.Data), want)
			}
			if !found {
				t.Errorf("%s: %q is in no layer", name, want)
			}
		}
		names := ""
		for _, l := range layers {
			if l.Kind == Part {
				names += l.Name + " "
			}
		}
		if !strings.HasPrefix(names, "n1 a.txt ") {
			t.Errorf("%s: the parts are %q", name, names)
		}
	}
	layersOf(t, Input{Data: []byte("no boundary"), Type: "multipart/form-data"})
	for _, typ := range []string{"multipart/form-data; boundary=b; boundary=c", `multipart/form-data; boundary="c"; Boundary=b`, "multipart/mixed; boundary=" + strings.Repeat("b", 300)} {
		if reason := reasonOf(t, Input{Data: []byte(body), Type: typ}, Limits{}); reason != "the boundary of a multipart is not clear" {
			t.Errorf("%.60s: %q", typ, reason)
		}
	}
	if reason := reasonOf(t, Input{Data: []byte(strings.Repeat("--b\n\nx\n", 20_000)), Type: "multipart/mixed; boundary=b"}, Limits{}); reason == "" {
		t.Error("20,000 parts are no error")
	}
}

func zipOf(t testing.TB, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, data := range files {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.Write([]byte(data))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func storedZip(t testing.TB, name, data string, method uint16, change func(*zip.FileHeader)) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	h := &zip.FileHeader{Name: name, Method: method, CompressedSize64: uint64(len(data)), UncompressedSize64: uint64(len(data))}
	if change != nil {
		change(h)
	}
	f, err := w.CreateRaw(h)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.Write([]byte(data))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func tarOf(t testing.TB, name, data string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte(data))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestArchives looks at members wherever a reader might find one, and refuses
// what cannot be looked at, or is read in two ways.
func TestArchives(t *testing.T) {
	text := `{"a":"` + jsonAll(secret) + `"}`
	good := zipOf(t, map[string]string{"dir/a.json": text})
	deflated := flateOf(text)
	lying := []byte(storedZip(t, "a", deflated, zip.Store, nil))
	directory := bytes.Index(lying, []byte("PK\x01\x02"))
	lying[directory+10] = 8 // the directory says that it is compressed
	hidden := storedZip(t, "outer", good[:len(good)-22], zip.Store, nil)
	for name, c := range map[string]struct{ data, member, want, reason string }{
		"zip":              {good, "dir/a.json", secret, ""},
		"with a prefix":    {"#!/bin/sh\n" + good, "dir/a.json", secret, ""},
		"and a suffix":     {good + "trailing bytes", "dir/a.json", secret, ""},
		"no directory":     {good[:strings.Index(good, "PK\x01\x02")], "dir/a.json", secret, ""},
		"zip in zip":       {zipOf(t, map[string]string{"b.zip": good}), "dir/a.json", secret, ""},
		"hidden in stored": {hidden, "dir/a.json", secret, ""},
		"zip in base64":    {base64.StdEncoding.EncodeToString([]byte(good)), "dir/a.json", secret, ""},
		"two zips":         {good + zipOf(t, map[string]string{"x": "y"}), "dir/a.json", secret, ""},
		"stored":           {storedZip(t, "s", text, zip.Store, nil), "s", secret, ""},
		"zstd":             {storedZip(t, "z", zstdOf(text), 93, nil), "z", secret, ""},
		"encrypted":        {storedZip(t, "e", text, zip.Store, func(h *zip.FileHeader) { h.Flags |= 1 }), "", "", "an archive is encrypted"},
		"lzma":             {storedZip(t, "l", text, 14, nil), "", "", "an archive is compressed in an unknown way"},
		"two methods":      {string(lying), "", "", "an archive contradicts itself"},
		"other names":      {strings.Replace(good, "dir/a.json", "dir/b.json", 1), "", "", "an archive contradicts itself"},
		"four bytes":       {"the file begins with PK\x03\x04 and so on, which is a magic number, as one says", "", "", ""},
		"tar":              {tarOf(t, "c/d.json", text), "c/d.json", secret, ""},
		"tar.gz":           {gzipOf(tarOf(t, "c/d.json", text)), "c/d.json", secret, ""},
		"long name":        {tarOf(t, strings.Repeat("p/", 60)+"n.json", text), strings.Repeat("p/", 60) + "n.json", secret, ""},
	} {
		in := Input{Data: []byte(c.data)}
		if reason := reasonOf(t, in, Limits{}); reason != c.reason {
			t.Errorf("%s: %q, want %q", name, reason, c.reason)
			continue
		}
		if c.want == "" {
			continue
		}
		layers := layersOf(t, in)
		named := false
		for _, l := range layers {
			named = named || l.Kind == Member && l.Name == c.member
		}
		if !named || !findsIn(layers, c.want) {
			t.Errorf("%s: member found: %v, secret found: %v", name, named, findsIn(layers, c.want))
		}
	}
}

// TestKinds holds what the layers of other packages' tests are called.
func TestKinds(t *testing.T) {
	for _, c := range []struct {
		data string
		kind Kind
		want string
	}{
		{"a%20b%2Fc", Percent, "a b/c"},
		{`{"a":"b\nc"}`, JSON, "{\"a\":\"b\nc\"}"},
		{"a &amp; b", HTML, "a & b"},
		{"%41&amp;", Escapes, "A&"},
		{"a=SOME+KEY", Form, "SOME KEY"},
		{base64.StdEncoding.EncodeToString([]byte("some text here")), Base64, "some text here"},
		{"eyJhbGciOiJIUzI1NiJ9.e30", Base64, `{"alg":"HS256"}`},
		{hex.EncodeToString([]byte("some text")), Hex, "some text"},
		{"ONXW2ZJAORSXQ5BAORXW6===", Base32, "some text too"},
		{"caf=C3=A9 s=\r\noon", QuotedPrintable, "café soon"},
		{"ｓｏｍｅ ｔｅｘｔ", Folded, "some text"},
		{utf16Of("some text", binary.LittleEndian), Charset, "some text"},
		{gzipOf("some text"), Coding, "some text"},
	} {
		l := layersOf(t, Input{Data: []byte(c.data)})
		if len(l) < 2 || l[1].Kind != c.kind || string(l[1].Data) != c.want {
			t.Errorf("%q: %+v", c.data, l[1:])
		}
	}
}
