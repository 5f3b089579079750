package corpus

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/ed25519"
	"crypto/sha1" //nolint:gosec // it names git's objects
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"io/fs"
	"math/big"
	"math/rand/v2"
	"strings"
	"time"
)

// sources are what recipes can begin with.
var sources = map[string]func(*kitchen, *call) ([]byte, error){
	"secret":  secret,
	"known":   text(func(*call) string { return Known }),
	"random":  func(_ *kitchen, c *call) ([]byte, error) { return randomBytes(c.rng(), c.number(0, 1024)), nil },
	"file":    file,
	"code":    code,
	"prose":   prose,
	"pattern": func(_ *kitchen, c *call) ([]byte, error) { return fromPattern(c) },
	"list":    list,
	"uuid":    text(func(c *call) string { return generate(c.rng(), uuidForm) }),
	"jwt":     text(func(c *call) string { return jwt(c.rng(), "https://login.example.com/") }),
	"png":     photo(func(w io.Writer, m image.Image, _ *call) error { return png.Encode(w, m) }),
	"jpeg": photo(func(w io.Writer, m image.Image, c *call) error {
		return jpeg.Encode(w, m, &jpeg.Options{Quality: c.number(2, 80)})
	}),
	"gif":       photo(func(w io.Writer, m image.Image, _ *call) error { return gif.Encode(w, m, &gif.Options{NumColors: 64}) }),
	"pdf":       pdf,
	"wav":       wav,
	"wheel":     wheel,
	"tgz":       tgz,
	"gitpack":   func(k *kitchen, c *call) ([]byte, error) { return pack(k, c) },
	"gitpush":   gitPush,
	"otlp":      text(otlp),
	"sourcemap": text(mappings),
	"minjs":     text(minified),
	"csv":       text(table),
	"log":       text(logLines),
	"integrity": text(integrity),
	"numbers":   text(numbers),
	"cert":      certificate,
	"sshpub":    text(sshPublic),
	"pgpsig":    text(pgpSignature),
	"sshsig":    text(sshSignature),
	"count":     text(counter),
	"weave":     text(weave),
	"ulids":     text(ulids),
	"repeat":    text(func(c *call) string { return strings.Repeat(c.text(1, "x"), c.number(0, 100)) }),
}

func text(f func(*call) string) func(*kitchen, *call) ([]byte, error) {
	return func(_ *kitchen, c *call) ([]byte, error) { return []byte(f(c)), nil }
}

// file gives a file of files/.
func file(k *kitchen, c *call) ([]byte, error) { return fs.ReadFile(k.files, "files/"+c.text(0, "")) }

// code gives source text: code LANGUAGE [TIMES]. Each time has other names.
func code(k *kitchen, c *call) ([]byte, error) {
	one, err := fs.ReadFile(k.files, "files/code."+c.text(0, "go")+".txt")
	if err != nil {
		return nil, err
	}
	return []byte(vary(c.rng(), string(one), c.number(1, 1))), nil
}

// vary repeats a text with other words for "item" and "load", and other numbers.
func vary(r *rand.Rand, one string, times int) string {
	nouns := []string{"order", "invoice", "session", "ticket", "parcel", "account", "branch", "sensor", "recipe", "voyage"}
	verbs := []string{"fetch", "parse", "render", "store", "merge", "index", "build", "check", "apply", "score"}
	var b strings.Builder
	for range times {
		n, v := nouns[r.IntN(len(nouns))], verbs[r.IntN(len(verbs))]
		b.WriteString(strings.NewReplacer("item", n, "Item", strings.ToUpper(n[:1])+n[1:], "load", v, "Load", strings.ToUpper(v[:1])+v[1:],
			"42", fmt.Sprint(r.IntN(9000))).Replace(one))
	}
	return b.String()
}

// prose gives sentences: prose LANGUAGE [SENTENCES].
func prose(k *kitchen, c *call) ([]byte, error) {
	data, err := fs.ReadFile(k.files, "files/prose.txt")
	if err != nil {
		return nil, err
	}
	var sentences []string
	for line := range strings.SplitSeq(string(data), "\n") {
		if lang, s, ok := strings.Cut(line, ": "); ok && lang == c.text(0, "en") {
			sentences = append(sentences, s)
		}
	}
	if len(sentences) == 0 {
		return nil, fmt.Errorf("there is no prose %q", c.text(0, "en"))
	}
	r := c.rng()
	var b strings.Builder
	for i := range c.number(1, 3) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(sentences[r.IntN(len(sentences))])
	}
	return []byte(b.String()), nil
}

// fromPattern gives a text that a pattern matches.
func fromPattern(c *call) ([]byte, error) {
	return []byte(generate(c.rng(), mustParse(c.text(0, "")))), nil
}

// list gives N texts of a pattern: list N SEPARATOR PATTERN.
func list(_ *kitchen, c *call) ([]byte, error) {
	r, re := c.rng(), mustParse(c.text(2, `[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`))
	var parts []string
	for range c.number(0, 10) {
		parts = append(parts, generate(r, re))
	}
	return []byte(strings.Join(parts, c.text(1, "\n"))), nil
}

// photo draws something like one: NAME WIDTH HEIGHT.
func photo(encode func(io.Writer, image.Image, *call) error) func(*kitchen, *call) ([]byte, error) {
	return func(_ *kitchen, c *call) ([]byte, error) {
		w, h, r := c.number(0, 64), c.number(1, 64), c.rng()
		m := image.NewRGBA(image.Rect(0, 0, w, h))
		shift := r.IntN(200)
		for y := range h {
			for x := range w {
				noise := r.IntN(24)
				m.SetRGBA(x, y, color.RGBA{byte(x*2 + shift + noise), byte(y*3 + noise), byte((x*y)/16 + shift), 255})
			}
		}
		var b bytes.Buffer
		err := encode(&b, m, c)
		return b.Bytes(), err
	}
}

// pdf makes a document of N pages with compressed streams and a table of them.
func pdf(k *kitchen, c *call) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
	var offsets []int
	object := func(format string, args ...any) {
		offsets = append(offsets, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n"+format+"\nendobj\n", append([]any{len(offsets)}, args...)...)
	}
	pages := c.number(0, 1)
	object("<< /Type /Catalog /Pages 2 0 R >>")
	var kids strings.Builder
	for i := range pages {
		fmt.Fprintf(&kids, "%d 0 R ", 4+2*i)
	}
	object("<< /Type /Pages /Count %d /Kids [%s] >>", pages, kids.String())
	object("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
	for i := range pages {
		words, err := prose(k, &call{name: c.name, word: "prose", args: []string{"en", "30", fmt.Sprint(i)}})
		if err != nil {
			return nil, err
		}
		stream, err := transforms["zlib"](c, []byte("BT /F1 11 Tf 50 700 Td ("+string(words)+") Tj ET"))
		if err != nil {
			return nil, err
		}
		object("<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R /Resources << /Font << /F1 3 0 R >> >> >>", 5+2*i)
		object("<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream", len(stream), stream)
	}
	at := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(offsets)+1)
	for _, o := range offsets {
		fmt.Fprintf(&b, "%010d 00000 n \n", o)
	}
	fmt.Fprintf(&b, "trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(offsets)+1, at)
	return b.Bytes(), nil
}

// wav makes MS of mono speech-like sound at 8 kHz.
func wav(_ *kitchen, c *call) ([]byte, error) {
	n, r := c.number(0, 200)*8, c.rng()
	data := make([]byte, 0, 2*n)
	level := 0
	for i := range n {
		level += r.IntN(401) - 200 - level/40
		data = binary.LittleEndian.AppendUint16(data, uint16(int16(level+(i%53)*40))) //nolint:gosec // samples wrap
	}
	out := binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(36+len(data)))
	out = append(out, "WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x80\x3e\x00\x00\x02\x00\x10\x00data"...)
	return append(binary.LittleEndian.AppendUint32(out, uint32(len(data))), data...), nil
}

// wheel makes a Python package: wheel [FILES].
func wheel(k *kitchen, c *call) ([]byte, error) {
	var out, record bytes.Buffer
	w := zip.NewWriter(&out)
	add := func(name string, data []byte) error {
		sum := sha256.Sum256(data)
		fmt.Fprintf(&record, "%s,sha256=%s,%d\n", name, base64.RawURLEncoding.EncodeToString(sum[:]), len(data))
		f, err := w.Create(name)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		return err
	}
	for i := range c.number(0, 3) {
		src, err := code(k, &call{name: c.name, word: "code", args: []string{"py", "3", fmt.Sprint(i)}})
		if err != nil {
			return nil, err
		}
		if err := add(fmt.Sprintf("demo/module_%d.py", i), src); err != nil {
			return nil, err
		}
	}
	if err := add("demo-1.0.dist-info/METADATA", []byte("Metadata-Version: 2.4\nName: demo\nVersion: 1.0\nRequires-Python: >=3.9\n")); err != nil {
		return nil, err
	}
	if err := add("demo-1.0.dist-info/RECORD", append(record.Bytes(), "demo-1.0.dist-info/RECORD,,\n"...)); err != nil {
		return nil, err
	}
	err := w.Close()
	return out.Bytes(), err
}

// tgz makes a source package: tgz LANGUAGE [FILES] [PREFIX].
func tgz(k *kitchen, c *call) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	lang := c.text(0, "js")
	for i := range c.number(1, 3) {
		src, err := code(k, &call{name: c.name, word: "code", args: []string{lang, "4", fmt.Sprint(i)}})
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("%s/src/part_%d.%s", c.text(2, "package"), i, lang)
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(src)), ModTime: time.Unix(499162500, 0), Format: tar.FormatUSTAR}); err != nil {
			return nil, err
		}
		if _, err := w.Write(src); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	err := z.Close()
	return out.Bytes(), err
}

// pack makes a packfile of blobs (gitformat-pack(5)): gitpack LANGUAGE [OBJECTS].
func pack(k *kitchen, c *call) ([]byte, error) {
	n := c.number(1, 5)
	out := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(n))
	for i := range n {
		src, err := code(k, &call{name: c.name, word: "code", args: []string{c.text(0, "go"), "2", fmt.Sprint(i)}})
		if err != nil {
			return nil, err
		}
		size := len(src)
		b := byte(3<<4 | size&15) // a blob
		for size >>= 4; size > 0; size >>= 7 {
			out = append(out, b|0x80)
			b = byte(size & 0x7f)
		}
		out = append(out, b)
		var z bytes.Buffer
		w := zlib.NewWriter(&z)
		if _, err := w.Write(src); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		out = append(out, z.Bytes()...)
	}
	sum := sha1.Sum(out) //nolint:gosec // what git has there
	return append(out, sum[:]...), nil
}

// gitPush makes the body of git-receive-pack (gitprotocol-pack(5)).
func gitPush(k *kitchen, c *call) ([]byte, error) {
	r := c.rng()
	id := func() string { return hex.EncodeToString(randomBytes(r, 20)) }
	line := fmt.Sprintf("%s %s refs/heads/main\x00 report-status-v2 side-band-64k object-format=sha1 agent=git/2.51.0", id(), id())
	p, err := pack(k, c)
	return append(fmt.Appendf(nil, "%04x%s0000", len(line)+4, line), p...), err
}

// otlp makes an ExportTraceServiceRequest with N spans (opentelemetry-proto).
func otlp(c *call) string {
	r := c.rng()
	field := func(n int, data string) string {
		return string(binary.AppendUvarint(binary.AppendUvarint(nil, uint64(n<<3|2)), uint64(len(data)))) + data
	}
	fixed := func(n int, v uint64) string {
		return string(binary.LittleEndian.AppendUint64(binary.AppendUvarint(nil, uint64(n<<3|1)), v))
	}
	attr := func(k, v string) string { return field(1, k) + field(2, field(1, v)) }
	routes := []string{"GET /v1/items", "POST /v1/items", "GET /health", "SELECT items", "redis GET", "kafka publish"}
	spans := ""
	for range c.number(0, 10) {
		at := uint64(1790000000000000000) + r.Uint64N(1e15)
		spans += field(2, field(1, string(randomBytes(r, 16)))+field(2, string(randomBytes(r, 8)))+field(4, string(randomBytes(r, 8)))+
			field(5, routes[r.IntN(len(routes))])+fixed(7, at)+fixed(8, at+r.Uint64N(1e9))+
			field(9, attr("http.request.method", "GET"))+field(9, attr("server.address", "db.internal.example"))+field(9, attr("thread.name", "worker-"+fmt.Sprint(r.IntN(16)))))
	}
	return field(1, field(1, field(1, attr("service.name", "checkout"))+field(1, attr("telemetry.sdk.language", "go")))+field(2, field(1, field(1, "demo"))+spans))
}

// mappings makes the VLQ text of a source map of N lines.
func mappings(c *call) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	r := c.rng()
	var b strings.Builder
	vlq := func(v int) {
		u := v << 1
		if v < 0 {
			u = -v<<1 | 1
		}
		for {
			d := u & 31
			if u >>= 5; u > 0 {
				d |= 32
			}
			b.WriteByte(digits[d])
			if u == 0 {
				return
			}
		}
	}
	for i := range c.number(0, 20) {
		if i > 0 {
			b.WriteByte(';')
		}
		for j := range 3 + r.IntN(12) {
			if j > 0 {
				b.WriteByte(',')
			}
			vlq(r.IntN(24))
			vlq(0)
			vlq(r.IntN(3))
			vlq(r.IntN(40) - 20)
			if r.IntN(4) == 0 {
				vlq(r.IntN(5))
			}
		}
	}
	return b.String()
}

// minified makes N statements as a minifier writes them.
func minified(c *call) string {
	r := c.rng()
	names := strings.Split("e t n r i o a s l c u d f p h m g v b y w x k _ E T N R", " ")
	props := strings.Split("length push map filter current state props children render default exports apply call then catch value key ref type style className", " ")
	n := func() string { return names[r.IntN(len(names))] }
	p := func() string { return props[r.IntN(len(props))] }
	var b strings.Builder
	for range c.number(0, 40) {
		fmt.Fprintf(&b, "function %s(%s,%s){var %s=%s.%s,%s=%d;return %s.%s?%s.%s(function(%s){return %s.%s+%s}):null!=%s&&%s(%s,%d)}",
			n(), n(), n(), n(), n(), p(), n(), r.IntN(512), n(), p(), n(), p(), n(), n(), p(), n(), n(), n(), n(), r.IntN(99))
	}
	return b.String()
}

// table makes N rows of comma-separated values.
func table(c *call) string {
	r := c.rng()
	names := []string{"Ada", "Grace", "Linus", "Barbara", "Edsger", "Radia", "Donald", "Frances"}
	b := "id,name,email,amount,currency,created_at,reference\n"
	for i := range c.number(0, 20) {
		n := names[r.IntN(len(names))]
		b += fmt.Sprintf("%d,%s,%s%d@example.com,%d.%02d,EUR,2026-%02d-%02dT%02d:%02d:%02dZ,%s\n", 1000+i, n, strings.ToLower(n), r.IntN(99), r.IntN(900), r.IntN(100),
			1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), generate(r, mustParse(`RF[0-9]{2}[0-9A-Z]{12}`)))
	}
	return b
}

// logLines makes N lines of a log with ids of requests.
func logLines(c *call) string {
	r := c.rng()
	var b strings.Builder
	for i := range c.number(0, 20) {
		fmt.Fprintf(&b, "2026-11-%02dT%02d:%02d:%02d.%03dZ INFO  [http-nio-8080-exec-%d] request_id=%s trace=%s status=%d path=/v1/items/%d took=%dms\n",
			1+i%28, r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(1000), r.IntN(20), generate(r, uuidForm), hex.EncodeToString(randomBytes(r, 16)), 200+100*r.IntN(4), r.IntN(9999), r.IntN(900))
	}
	return b.String()
}

// integrity makes N lines of a lock file: integrity FORM [N].
func integrity(c *call) string {
	r := c.rng()
	var b strings.Builder
	for i := range c.number(1, 10) {
		name := generate(r, mustParse(`[a-z]{4,9}(-[a-z]{3,7})?`))
		v := fmt.Sprintf("%d.%d.%d", r.IntN(9), r.IntN(30), r.IntN(20))
		h256, h512 := sha256.Sum256(randomBytes(r, 8)), sha512.Sum512(randomBytes(r, 8))
		switch c.text(0, "npm") {
		case "npm":
			if i > 0 {
				b.WriteString(",\n")
			}
			fmt.Fprintf(&b, "    \"node_modules/%s\": {\n      \"version\": %q,\n      \"resolved\": \"https://registry.example.com/%s/-/%s-%s.tgz\",\n      \"integrity\": \"sha512-%s\"\n    }",
				name, v, name, name, v, base64.StdEncoding.EncodeToString(h512[:]))
		case "go":
			fmt.Fprintf(&b, "example.com/%s v%s h1:%s\nexample.com/%s v%s/go.mod h1:%s\n", name, v, base64.StdEncoding.EncodeToString(h256[:]), name, v, base64.StdEncoding.EncodeToString(h512[:32]))
		case "cargo":
			fmt.Fprintf(&b, "[[package]]\nname = %q\nversion = %q\nsource = \"registry+https://index.example.com\"\nchecksum = \"%x\"\n\n", name, v, h256)
		case "pip":
			fmt.Fprintf(&b, "%s==%s \\\n    --hash=sha256:%x \\\n    --hash=sha256:%x\n", name, v, h256, h512[:32])
		case "sri":
			fmt.Fprintf(&b, "<script src=\"https://cdn.example.com/%s@%s/dist/%s.min.js\" integrity=\"sha384-%s\" crossorigin=\"anonymous\"></script>\n", name, v, name, base64.StdEncoding.EncodeToString(h512[:48]))
		case "oci":
			fmt.Fprintf(&b, "{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"size\":%d,\"digest\":\"sha256:%x\"},\n", r.IntN(1e8), h256)
		case "sums":
			fmt.Fprintf(&b, "%x  %s-%s-linux-amd64.tar.gz\n", h256, name, v)
		}
	}
	return b.String()
}

// numbers makes N numbers between -1 and 1, as embeddings are sent.
func numbers(c *call) string {
	r := c.rng()
	parts := make([]string, c.number(0, 256))
	for i := range parts {
		parts[i] = fmt.Sprintf("%.7f", r.Float64()*2-1)
	}
	return strings.Join(parts, ",")
}

// certificate makes a self-signed certificate in PEM form, which is public.
func certificate(_ *kitchen, c *call) ([]byte, error) {
	r := c.rng()
	key := ed25519.NewKeyFromSeed(randomBytes(r, ed25519.SeedSize))
	t := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(randomBytes(r, 16)), Subject: pkix.Name{CommonName: "service.example.com"},
		NotBefore: time.Unix(1790000000, 0), NotAfter: time.Unix(1890000000, 0), DNSNames: []string{"service.example.com"},
	}
	der, err := x509.CreateCertificate(nil, t, t, key.Public(), key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

func sshPublic(c *call) string {
	part := func(s string) string { return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s }
	return "ssh-ed25519 " + base64.StdEncoding.EncodeToString([]byte(part("ssh-ed25519")+part(string(randomBytes(c.rng(), 32))))) + " dev@example.com"
}

// pgpSignature makes a signature of a document by a key of RSA (RFC 9580 section
// 5.2.3), in its armor with a checksum.
func pgpSignature(c *call) string {
	r := c.rng()
	key := string(randomBytes(r, 20))
	hashed := "\x16\x21\x04" + key + "\x05\x02" + string(binary.BigEndian.AppendUint32(nil, 1795500000))
	other := "\x09\x10" + key[12:]
	number := randomBytes(r, 256)
	number[0] |= 0x80
	body := "\x04\x00\x01\x08\x00" + string(rune(len(hashed))) + hashed + "\x00" + string(rune(len(other))) + other + string(randomBytes(r, 2)) + "\x08\x00" + string(number)
	packet := string(binary.BigEndian.AppendUint16([]byte{0x89}, uint16(len(body)))) + body
	lines, _ := wrapLines(&call{args: []string{"64"}}, []byte(base64.StdEncoding.EncodeToString([]byte(packet)))) // it has no errors
	return "-----BEGIN PGP SIGNATURE-----\n\n" + string(lines) + "\n=" + base64.StdEncoding.EncodeToString(crc24([]byte(packet))) + "\n-----END PGP SIGNATURE-----\n"
}

// crc24 is the checksum of armor (RFC 9580 section 6.1).
func crc24(data []byte) []byte {
	crc := uint32(0xb704ce)
	for _, b := range data {
		crc ^= uint32(b) << 16
		for range 8 {
			if crc <<= 1; crc&0x1000000 != 0 {
				crc ^= 0x1864cfb
			}
		}
	}
	return []byte{byte(crc >> 16), byte(crc >> 8), byte(crc)}
}

// sshSignature makes a signature of a commit (OpenSSH, PROTOCOL.sshsig).
func sshSignature(c *call) string {
	part := func(s string) string { return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s }
	r := c.rng()
	key := part("ssh-ed25519") + part(string(randomBytes(r, 32)))
	data := "SSHSIG\x00\x00\x00\x01" + part(key) + part("git") + part("") + part("sha512") + part(part("ssh-ed25519")+part(string(randomBytes(r, 64))))
	lines, _ := wrapLines(&call{args: []string{"70"}}, []byte(base64.StdEncoding.EncodeToString([]byte(data)))) // it has no errors
	return "-----BEGIN SSH SIGNATURE-----\n" + string(lines) + "\n-----END SSH SIGNATURE-----\n"
}

// counter counts from one on in N numbers: count N WIDTH FORM, in which b is
// single bytes.
func counter(c *call) string {
	var b strings.Builder
	for i := range c.number(0, 100) {
		if form := c.text(2, "d"); form == "b" {
			b.WriteByte(byte(i))
		} else {
			fmt.Fprintf(&b, "%0*"+form, c.number(1, 6), i+1)
		}
	}
	return b.String()
}

// weave puts N random digits each before a number that counts: weave N.
func weave(c *call) string {
	var b strings.Builder
	r := c.rng()
	for i := range c.number(0, 1000) {
		fmt.Fprintf(&b, "%d%03d", r.IntN(10), i%1000)
	}
	return b.String()
}

// ulids makes N ULIDs, a minute apart, in a list of JSON.
func ulids(c *call) string {
	const digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	r := c.rng()
	var all []string
	for i := range c.number(0, 100) {
		id := make([]byte, 26)
		for ms, at := int64(1795500000000)+int64(i)*60000, 9; at >= 0; at-- {
			id[at], ms = digits[ms&31], ms>>5
		}
		for at := 10; at < len(id); at++ {
			id[at] = digits[r.IntN(len(digits))]
		}
		all = append(all, string(id))
	}
	return `["` + strings.Join(all, `","`) + `"]`
}
