package payload

import (
	"bytes"
	"context"
	"encoding/base64"
	"math"
	"net/url"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/decode"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/payload/payloadtest"
)

func TestEntropy(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, tt := range []struct {
		data []byte
		want float64
	}{
		{nil, 0},
		{[]byte("a"), 0},
		{bytes.Repeat([]byte("a"), 999), 0},
		{bytes.Repeat([]byte("ab"), 333), 1},
		{bytes.Repeat([]byte("abcd"), 77), 2},
		{all, 8},
	} {
		if got := Entropy(tt.data); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("Entropy(%.20q) = %v; want %v", tt.data, got, tt.want)
		}
	}
}

// TestCorrected: random data of any length measures the bits of its alphabet.
func TestCorrected(t *testing.T) {
	for _, tt := range []struct {
		symbols string
		a       *Alphabet
	}{
		{"0123456789", Decimal},
		{"0123456789abcdef", Hex},
		{"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", Base32},
		{"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", Base64},
	} {
		for _, n := range []int{20, 64, 256, 5000} {
			sum := 0.0
			for seed := range uint64(200) {
				var h histogram
				h.add([]byte(payloadtest.New(seed).Of(tt.symbols, n)))
				sum += h.entropy() + tt.a.Bits - expected(n, tt.a.size)
			}
			if got := sum / 200; math.Abs(got-tt.a.Bits) > 0.08 {
				t.Errorf("%s of %d characters measures %.3f bits; want %.3f", tt.a.Name, n, got, tt.a.Bits)
			}
		}
	}
}

// TestRandomText counts how often random data is not seen as such, and how
// often words are taken for it.
func TestRandomText(t *testing.T) {
	const rounds = 3000
	for _, tt := range []struct {
		symbols string
		a       *Alphabet
		n       int
		missed  int // at most, of rounds
	}{
		{"0123456789", Decimal, 64, 15},
		{"0123456789abcdef", Hex, 64, 15},
		{"0123456789ABCDEFabcdef", Hex, 64, 30},
		{"abcdefghijklmnopqrstuvwxyz234567", Base32, 64, 15},
		{"0123456789abcdefghijklmnopqrstuvwxyz", Base36, 64, 15},
		{"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", Base64, 64, 30},
		{"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", Base64, 40, 150},
		{"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", Base64, 64, 60},
	} {
		missed := 0
		for seed := range uint64(rounds) {
			if randomText([]byte(payloadtest.New(seed).Of(tt.symbols, tt.n))) == nil {
				missed++
			}
		}
		if missed > tt.missed {
			t.Errorf("missed %d of %d random blocks of %q", missed, rounds, tt.symbols)
		}
	}
	for _, words := range []string{
		"getElementsByClassNameAndTagNameOfParentNodeInDocumentOrderOfTree", "/usr/lib/python3/dist-packages/setuptools/command/build_ext/windows",
		"THIS_IS_A_CONSTANT_WITH_A_VERY_LONG_NAME_IN_SOME_HEADER_OF_THE_API", "a_function_name_with_words_and_2_digits_and_more_words_than_usual_",
		strings.Repeat("-", 64), strings.Repeat("----+", 13), "a-1-b--------------------------------------------------------2-c--", strings.Repeat("A", 64), strings.Repeat("ab", 32), strings.Repeat("0", 64),
	} {
		if a := randomText([]byte(words)[:64]); a != nil {
			t.Errorf("%s is taken for random %s", words, a.Name)
		}
	}
}

// whole are files of each type that is known by its structure.
func whole() map[string][]byte {
	r := payloadtest.New(1)
	wav := append([]byte("RIFF\x24\x10\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x44\xac\x00\x00\x88\x58\x01\x00\x02\x00\x10\x00data\x00\x10\x00\x00"), r.Bytes(4096)...)
	webp := append([]byte("RIFF\x16\x10\x00\x00WEBPVP8 \x0a\x10\x00\x00\x10\x02\x00\x9d\x01\x2a\x20\x00\x20\x00"), r.Bytes(4096)...)
	empty := func(names ...string) (b string) {
		for _, n := range names {
			b += "\x00\x00\x00\x0c" + n + "\x00\x00\x00\x00"
		}
		return b
	}
	mp4 := append([]byte("\x00\x00\x00\x14ftypmp42\x00\x00\x00\x00mp42\x00\x00\x00\x20moov"+empty("mvhd", "trak")+"\x00\x00\x10\x08mdat"), r.Bytes(4096)...)
	avif := append([]byte("\x00\x00\x00\x14ftypavif\x00\x00\x00\x00mif1\x00\x00\x00\x3cmeta\x00\x00\x00\x00"+empty("hdlr", "iloc", "iinf", "iprp")+"\x00\x00\x10\x08mdat"), r.Bytes(4096)...)
	frame := append([]byte("\xff\xfb\x90\x00"), r.Bytes(413)...)
	files := r.Files()
	return map[string][]byte{
		"image/png": r.PNG(50, 40), "image/jpeg": r.JPEG(50, 40), "image/gif": r.GIF(40, 40), "image/webp": webp, "audio/wav": wav,
		"video/mp4": mp4, "image/heif": avif, "audio/mpeg": bytes.Repeat(frame, 12), "application/pdf": r.PDF(),
		"application/gzip": payloadtest.Gzip([]byte(r.Prose(900))), "application/zlib": payloadtest.Zlib([]byte(r.Prose(900))),
		"application/zip": payloadtest.Zip(files), "application/x-tar": payloadtest.Tar(files), "application/x-git-pack": r.Pack(r.Objects()...),
	}
}

func look(data []byte) *examiner {
	x := &examiner{root: &root{bytes: maxUnpacked}}
	x.examine(data)
	return x
}

// TestStructures: a whole file is what it says; one that is cut is not, and
// what stands behind the end of one is judged by itself.
func TestStructures(t *testing.T) {
	noise := payloadtest.New(2).Bytes(4096)
	for typ, data := range whole() {
		t.Run(typ, func(t *testing.T) {
			x := look(data)
			if x.found.Type != typ || x.found.Opaque > 0 {
				t.Fatalf("it is %q with %d opaque bytes", x.found.Type, x.found.Opaque)
			}
			if x := look(append(bytes.Clone(data), noise...)); x.found.Opaque < 3500 {
				t.Errorf("with 4,096 random bytes behind it, %d are opaque", x.found.Opaque)
			}
			if typ == "audio/mpeg" || typ == "application/pdf" || typ == "application/x-tar" {
				return // a whole number of frames, and text, are left
			}
			if x := look(data[:len(data)*3/4]); x.found.Type == typ {
				t.Error("three quarters of it are taken for the whole")
			}
		})
	}
}

// TestForged: headers with random data behind them explain nothing.
func TestForged(t *testing.T) {
	r := payloadtest.New(3)
	for typ, data := range whole() {
		for _, head := range []int{16, 64, 200} {
			switch typ {
			case "image/webp", "image/heif", "audio/wav", "video/mp4":
				if head > 16 {
					continue // a frame of any bytes is a frame: see the README of entropy
				}
			}
			forged := append(bytes.Clone(data[:min(head, len(data)/4)]), r.Bytes(5000)...)
			if x := look(forged); x.found.Opaque < 4000 || len(x.found.Media) > 0 {
				t.Errorf("%s, %d bytes of it and 5,000 random ones: %q, %d are opaque, %v", typ, head, x.found.Type, x.found.Opaque, x.found.Media)
			}
		}
	}
	// In a JPEG, random data can stand where metadata does, up to a bound.
	jpg := r.JPEG(30, 30)
	var long bytes.Buffer
	long.Write(jpg[:2])
	for range 8 {
		long.WriteString("\xff\xed\xff\xff")
		long.Write(r.Bytes(65533))
	}
	long.Write(jpg[2:])
	if x := look(long.Bytes()); x.found.Opaque < 64<<10 {
		t.Errorf("of half a MiB of metadata %d bytes are opaque", x.found.Opaque)
	}
}

func TestBomb(t *testing.T) {
	bomb := payloadtest.Gzip(payloadtest.Gzip(make([]byte, 100<<20)))
	if x := look(bomb); x.root.bytes < -(1 << 21) {
		t.Errorf("%d bytes were unpacked beyond the bound", -x.root.bytes)
	}
	deep := []byte(payloadtest.New(4).Base64(600))
	for range maxDepth + 2 {
		deep = payloadtest.Gzip(deep)
	}
	if x := look(append(deep, payloadtest.New(5).Bytes(10)...)); x.found.Opaque == 0 {
		t.Error("what is packed too deep is explained")
	}
}

// TestShapes: ids of known shapes are no random data, and those beside them are.
func TestShapes(t *testing.T) {
	r := payloadtest.New(6)
	key := append([]byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"), r.Bytes(32)...)
	for _, tt := range []struct {
		text string
		is   bool
	}{
		{r.UUID(), true},
		{"urn:uuid:" + r.UUID() + "/" + r.UUID(), true},
		{strings.ToUpper(r.UUID()), true},
		{r.Hex(8) + "-" + r.Hex(4) + "-0" + r.Hex(3) + "-" + r.Hex(4) + "-" + r.Hex(12), false}, // no version
		{r.Hex(40), true},
		{"sha256:" + r.Hex(64), true},
		{r.Hex(63), false},
		{r.Hex(65), false},
		{r.Hex(200), false},
		{"sha512-" + r.Base64(64), true},
		{"sha384-" + r.Base64(48), true},
		{"sha512-" + r.Base64(66), false},
		{"a.py,sha256=" + strings.TrimRight(base64.URLEncoding.EncodeToString(r.Bytes(32)), "=") + ",77", true},
		{"a.py,size=" + strings.TrimRight(base64.URLEncoding.EncodeToString(r.Bytes(32)), "=") + ",77", false},
		{r.JWT(256), true},
		{r.JWT(2000), false},
		{"eyJ" + r.Of("abcdefghijklmnopqrstuvwxyzABCDEF0123456789", 100) + "." + r.Of("abcdefghijklmnopqrstuvwxyzABCDEF0123456789", 100) + "." + r.Of("abcdefghijklmnopqrstuvwxyzABCDEF0123456789", 100), false},
		{"ssh-ed25519 " + base64.StdEncoding.EncodeToString(key), true},
		{"ssh-ed25519 " + base64.StdEncoding.EncodeToString(r.Bytes(51)), false},
		{payloadtest.Certificate, true},
		{"-----BEGIN CERTIFICATE-----\n" + r.Base64(300) + "\n-----END CERTIFICATE-----\n", false},
		{base64.StdEncoding.EncodeToString([]byte("only text, though it is in base64, is no random data")), true},
	} {
		if f := look([]byte(tt.text)).found; (f.medium+f.short == 0) != tt.is {
			t.Errorf("%.100s: %d characters are random; is it known? %v", tt.text, f.medium+f.short, tt.is)
		}
	}
}

// TestSlots: a credential belongs somewhere, up to a bound.
func TestSlots(t *testing.T) {
	r := payloadtest.New(7)
	text := func(key string, n int) []byte { return []byte(`{"` + key + `": "` + r.Base64(n) + `"}`) }
	for _, tt := range []struct {
		name string
		data []byte
		is   bool
	}{
		{"a token", text("refresh_token", 600), true},
		{"a token that is too long", text("refresh_token", 1800), false},
		{"another key", text("description", 600), false},
		{"in a nested string", []byte(`{"x":"{\"access_token\":\"` + r.Base64(300) + `\"}"}`), true},
		{"in a form", []byte("grant_type=x&code=0.A" + r.Base64(300) + "&x=y"), true},
		{"behind a scheme", []byte("Authorization: Bearer " + r.Base64(300)), true},
		{"six of them", bytes.Repeat(text("token", 1200), 6), false},
	} {
		if f := look(tt.data).found; (f.medium == 0) != tt.is {
			t.Errorf("%s: %d characters are random", tt.name, f.medium)
		}
	}
}

// text is a place with the tree of layers that decoding gives.
func text(place inspect.Place, name string, layers ...decode.Layer) inspect.Text {
	return inspect.Text{Place: place, Name: name, Tree: &decode.Tree{Layers: layers}}
}

func raw(data []byte) decode.Layer { return decode.Layer{Kind: decode.Raw, Parent: -1, Data: data} }

func measured(t inspect.Text, codings ...string) Text {
	c := &inspect.Content{Request: &inspect.Request{Method: "POST", Host: hostname.MustParse("a.example"), URL: &url.URL{Path: "/"}}, Encoding: codings}
	return measure(c, []inspect.Text{t})[0]
}

// TestLayers: declared codings and parts stand for what they were decoded
// from, and nothing else does.
func TestLayers(t *testing.T) {
	r := payloadtest.New(8)
	noise := r.Bytes(5000)
	prose := []byte(r.Prose(900))
	head, tail := []byte("--b\r\nContent-Type: image/png\r\n\r\n"), []byte("\r\n--b--\r\n")
	image := r.PNG(40, 40)
	multipart := append(append(bytes.Clone(head), image...), tail...)
	part := decode.Layer{Kind: decode.Part, Type: "image/png", Data: image, Start: len(head), End: len(head) + len(image)}
	late := part
	late.Start, late.End = late.Start+len(noise), late.End+len(noise)
	for _, tt := range []struct {
		name    string
		codings []string
		layers  []decode.Layer
		opaque  bool
	}{
		{"text in a declared coding", []string{"br"}, []decode.Layer{raw(noise), {Kind: decode.Coding, Data: prose}}, false},
		{"text in two of them", []string{"gzip, br"}, []decode.Layer{raw(noise), {Kind: decode.Coding, Data: noise[:900]}, {Kind: decode.Coding, Parent: 1, Data: prose}}, false},
		{"random in a declared coding", []string{"br"}, []decode.Layer{raw(noise), {Kind: decode.Coding, Data: noise}}, true},
		{"random without one", nil, []decode.Layer{raw(noise)}, true},
		{"identity", []string{"identity"}, []decode.Layer{raw(noise), {Kind: decode.Coding, Data: prose}}, true},
		{"a coding that nobody declared", nil, []decode.Layer{raw(noise), {Kind: decode.Coding, Data: prose, Start: 0, End: 4990}}, true},
		{"more codings than were declared", []string{"br"}, []decode.Layer{raw(prose), {Kind: decode.Coding, Data: noise}, {Kind: decode.Coding, Parent: 1, Data: prose, End: 4990}}, true},
		{"a member that says it is all", nil, []decode.Layer{raw(noise), {Kind: decode.Member, Data: prose, Start: 0, End: 4990}}, true},
		{"a part of multipart", nil, []decode.Layer{raw(multipart), part}, false},
		{"random before the first part", nil, []decode.Layer{raw(append(bytes.Clone(noise), multipart...)), late}, true},
		{"a part that is elsewhere", nil, []decode.Layer{raw(noise), {Kind: decode.Part, Data: prose, Start: 10, End: 6000}}, true},
		{"what words are the base64 of", nil, []decode.Layer{raw(prose), {Kind: decode.Base64, Data: noise, Start: 3, End: 40}}, false},
		{"what a picture is a charset of", nil, []decode.Layer{raw(image), {Kind: decode.Charset, Data: noise, Start: 3, End: 40}}, false},
		{"percent", nil, []decode.Layer{raw([]byte(url.QueryEscape(string(noise)))), {Kind: decode.Percent, Data: noise}}, true},
	} {
		m := measured(text(inspect.PlaceBody, "", tt.layers...), tt.codings...)
		got := 0
		for i := range m.Layers {
			got += m.Layers[i].Opaque
		}
		if (got >= 1000) != tt.opaque {
			t.Errorf("%s: %d opaque bytes", tt.name, got)
		}
	}
}

// TestSeen: what stands in the layer above was judged there, and what decoding
// put together was not.
func TestSeen(t *testing.T) {
	s := payloadtest.New(9).Of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", 400)
	above := []byte(`{"a":"\n` + s + `"}`)
	cut := measured(text(inspect.PlaceBody, "", raw(above), decode.Layer{Kind: decode.JSON, Data: []byte("\n" + s[:200])}))
	if n := cut.Layers[1].Run.Len; n != 0 {
		t.Errorf("a piece of what was judged above counts as %d characters", n)
	}
	hidden := []byte(`{"a":"` + strings.ReplaceAll(s, "A", `\u0041`) + `"}`)
	put := measured(text(inspect.PlaceBody, "", raw(hidden), decode.Layer{Kind: decode.JSON, Data: []byte(`{"a":"` + s + `"}`)}))
	if n := put.Layers[1].Run.Len; n != 400 {
		t.Errorf("what decoding put together counts as %d characters of 400", n)
	}
}

// TestMemo: two who ask get one measure.
func TestMemo(t *testing.T) {
	c := payloadtest.Request("POST", "https://a.example/", nil, []byte("x"))
	a, err := Of(context.Background(), c)
	b, err2 := Of(context.Background(), c)
	if err != nil || err2 != nil || &a[0] != &b[0] {
		t.Errorf("two measures of one content: %v %v", err, err2)
	}
}

func TestClip(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "a\x1b[31m\nb\u202e": "a?[31m?b?", "\xff": "?", strings.Repeat("é", 70): strings.Repeat("é", 64) + "…",
	} {
		if got := Clip(in); got != want {
			t.Errorf("Clip(%q) = %q; want %q", in, got, want)
		}
	}
}

// FuzzFormats gives each parser what an agent may send: none panics, reads
// beyond the end, or unpacks more than it may.
func FuzzFormats(f *testing.F) {
	for _, data := range whole() {
		f.Add(data[:min(len(data), 4096)])
		f.Add(data[:len(data)/2][:min(len(data)/2, 2048)])
	}
	f.Add([]byte("wOF2OTTO\x00\x00\x00\x40\x00\x01\x00\x00\x00\x00\x00\x80"))
	f.Add([]byte("%!PS-AdobeFont currentfile eexec abcdefgh"))
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		for i := range formats {
			if !formats[i].magic(data) {
				continue
			}
			x := &examiner{root: &root{bytes: 1 << 20}}
			if end, ok := formats[i].parse(x, data); ok && (end <= 0 || end > len(data)) {
				t.Errorf("%s ends at %d of %d", formats[i].typ, end, len(data))
			}
			if x.root.bytes < -(1<<20)-4096 {
				t.Errorf("%s unpacked %d bytes too many", formats[i].typ, -x.root.bytes)
			}
		}
		look(data)
		if !bytes.Equal(before, data) {
			t.Error("the data was changed")
		}
	})
}

// FuzzText looks at text: what is found is within it.
func FuzzText(f *testing.F) {
	r := payloadtest.New(9)
	for name, enc := range payloadtest.Encodings() {
		f.Add(name + "=" + enc(r.Bytes(200)))
	}
	f.Add(string(r.Lock(3)))
	f.Add(r.JWT(64) + " " + r.UUID() + "\n" + payloadtest.Certificate)
	f.Fuzz(func(t *testing.T, s string) {
		x := look([]byte(s))
		if n := x.found.Run.Len; n > len(s) || n > 0 && x.found.Run.Alphabet == nil {
			t.Errorf("a run of %d characters in %d", n, len(s))
		}
	})
}
