package corpus

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"net/url"
	"strings"
	"unicode/utf16"
)

// transforms are the wrappers and other changes that a recipe can ask for.
var transforms = map[string]func(*call, []byte) ([]byte, error){
	"base64":    plain(func(b []byte) string { return base64.StdEncoding.EncodeToString(b) }),
	"base64raw": plain(func(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }),
	"base64url": plain(func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }),
	"base32":    plain(func(b []byte) string { return base32.StdEncoding.EncodeToString(b) }),
	"base32low": plain(func(b []byte) string {
		return strings.ToLower(strings.TrimRight(base32.StdEncoding.EncodeToString(b), "="))
	}),
	"hex":        plain(hex.EncodeToString),
	"HEX":        plain(func(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }),
	"percent":    plain(func(b []byte) string { return url.PathEscape(string(b)) }),
	"query":      plain(func(b []byte) string { return url.QueryEscape(string(b)) }),
	"percentall": plain(func(b []byte) string { return eachByte(b, "%%%02X") }),
	"percentlow": plain(func(b []byte) string { return eachByte(b, "%%%02x") }),
	"bytes":      plain(func(b []byte) string { return strings.TrimSuffix(eachByte(b, "%d,"), ",") }),
	"hexescape":  plain(func(b []byte) string { return eachByte(b, `\u%04x`) }),
	"htmldec":    plain(func(b []byte) string { return eachByte(b, "&#%d;") }),
	"htmlhex":    plain(func(b []byte) string { return eachByte(b, "&#x%x;") }),
	"upper":      plain(func(b []byte) string { return strings.ToUpper(string(b)) }),
	"json": plain(func(b []byte) string {
		out, _ := json.Marshal(string(b)) // text always can be
		return string(out[1 : len(out)-1])
	}),
	"escape": plain(func(b []byte) string { // JSON in ASCII alone
		var out strings.Builder
		quoted, _ := json.Marshal(string(b)) // text always can be
		for _, u := range utf16.Encode([]rune(string(quoted[1 : len(quoted)-1]))) {
			if u < 0x80 {
				out.WriteByte(byte(u))
			} else {
				fmt.Fprintf(&out, `\u%04x`, u)
			}
		}
		return out.String()
	}),
	"fullwidth": plain(func(b []byte) string {
		return strings.Map(func(r rune) rune {
			if '!' <= r && r <= '~' {
				return r - '!' + '！'
			}
			return r
		}, string(b))
	}),
	"cyrillic": plain(func(b []byte) string {
		return strings.NewReplacer("a", "а", "c", "с", "e", "е", "o", "о", "p", "р", "x", "х", "A", "А", "B", "В", "E", "Е", "K", "К", "M", "М", "H", "Н", "O", "О", "P", "Р", "C", "С", "T", "Т", "X", "Х").Replace(string(b))
	}),
	"zerowidth": plain(func(b []byte) string { return strings.Join(strings.Split(string(b), ""), "\u200b") }),
	"combining": plain(func(b []byte) string { return strings.Join(strings.Split(string(b), ""), "\u0301") }),
	"math": plain(func(b []byte) string { // MATHEMATICAL MONOSPACE
		return strings.Map(func(r rune) rune {
			switch {
			case 'A' <= r && r <= 'Z':
				return r - 'A' + 0x1d670
			case 'a' <= r && r <= 'z':
				return r - 'a' + 0x1d68a
			case '0' <= r && r <= '9':
				return r - '0' + 0x1d7f6
			}
			return r
		}, string(b))
	}),
	"qp": func(_ *call, b []byte) ([]byte, error) {
		var out bytes.Buffer
		w := quotedprintable.NewWriter(&out)
		if _, err := w.Write(b); err != nil {
			return nil, err
		}
		err := w.Close()
		return out.Bytes(), err
	},
	"qpall":    plain(func(b []byte) string { return eachByte(b, "=%02X") }),
	"lines":    wrapLines,
	"prefix":   func(c *call, b []byte) ([]byte, error) { return append([]byte(c.text(0, "")), b...), nil },
	"suffix":   func(c *call, b []byte) ([]byte, error) { return append(b, c.text(0, "")...), nil },
	"slice":    slice,
	"every":    every,
	"utf16le":  wide(binary.LittleEndian, false),
	"utf16be":  wide(binary.BigEndian, false),
	"utf16bom": wide(binary.LittleEndian, true),
	"utf32le": plain(func(b []byte) string {
		var out []byte
		for _, r := range string(b) {
			out = binary.LittleEndian.AppendUint32(out, uint32(r))
		}
		return string(out)
	}),
	"len32le": plain(func(b []byte) string {
		return string(append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...))
	}),
	"gzip":    compress(func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }),
	"zlib":    compress(func(w io.Writer) (io.WriteCloser, error) { return zlib.NewWriter(w), nil }),
	"deflate": compress(func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestCompression) }),
	"members": gzipMembers,
	"brotli":  plain(func(b []byte) string { return string(brotliStored(b)) }),
	"zstd":    plain(func(b []byte) string { return string(zstdStored(b)) }),
	"zip":     zipped,
	"named":   named,
	"tar":     tarred,
	"datauri": func(c *call, b []byte) ([]byte, error) {
		return append([]byte("data:"+c.text(0, "image/png")+";base64,"), base64.StdEncoding.EncodeToString(b)...), nil
	},
	"awschunks": awsChunks,
	"grpcframe": plain(func(b []byte) string {
		return string(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...))
	}),
}

func plain(f func([]byte) string) func(*call, []byte) ([]byte, error) {
	return func(_ *call, b []byte) ([]byte, error) { return []byte(f(b)), nil }
}

func eachByte(b []byte, format string) string {
	var out strings.Builder
	for _, c := range b {
		fmt.Fprintf(&out, format, c)
	}
	return out.String()
}

// wrapLines breaks text into lines: lines WIDTH [END [PREFIX]].
func wrapLines(c *call, b []byte) ([]byte, error) {
	width, end, prefix := c.number(0, 76), c.text(1, "\n"), c.text(2, "")
	var out []byte
	for len(b) > 0 {
		n := min(width, len(b))
		out = append(append(append(out, prefix...), b[:n]...), end...)
		b = b[n:]
	}
	return bytes.TrimSuffix(out, []byte(end)), nil
}

// slice takes the part FROM to END of the data.
func slice(c *call, b []byte) ([]byte, error) {
	from, to := c.number(0, 0), c.number(1, len(b))
	if from > len(b) {
		return nil, errors.New("the slice begins behind the end")
	}
	return b[from:min(to, len(b))], nil
}

// every puts TEXT between pieces of N bytes.
func every(c *call, b []byte) ([]byte, error) {
	var out []byte
	for i := 0; i < len(b); i += c.number(0, 8) {
		if i > 0 {
			out = append(out, c.text(1, " ")...)
		}
		out = append(out, b[i:min(i+c.number(0, 8), len(b))]...)
	}
	return out, nil
}

func wide(order binary.AppendByteOrder, mark bool) func(*call, []byte) ([]byte, error) {
	return func(_ *call, b []byte) ([]byte, error) {
		var out []byte
		if mark {
			out = order.AppendUint16(out, 0xfeff)
		}
		for _, u := range utf16.Encode([]rune(string(b))) {
			out = order.AppendUint16(out, u)
		}
		return out, nil
	}
}

func compress(open func(io.Writer) (io.WriteCloser, error)) func(*call, []byte) ([]byte, error) {
	return func(_ *call, b []byte) ([]byte, error) {
		var out bytes.Buffer
		w, err := open(&out)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(b); err != nil {
			return nil, err
		}
		err = w.Close()
		return out.Bytes(), err
	}
}

// gzipMembers hides the data in the second member (RFC 1952 section 2.2).
func gzipMembers(_ *call, b []byte) ([]byte, error) {
	var out bytes.Buffer
	for _, member := range [][]byte{[]byte("nothing to see here\n"), b} {
		w := gzip.NewWriter(&out)
		if _, err := w.Write(member); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// brotliStored writes one uncompressed meta-block and the empty last one (RFC
// 7932 section 9.2). The data has at most 65,536 bytes.
func brotliStored(b []byte) []byte {
	if len(b) == 0 {
		return []byte{0x06}
	}
	n := uint32(len(b) - 1)
	// WBITS 16 is one bit 0; then ISLAST 0, MNIBBLES 4 as 00, MLEN-1 in 16
	// bits, ISUNCOMPRESSED 1.
	head := n<<4 | 1<<20
	out := []byte{byte(head), byte(head >> 8), byte(head >> 16)}
	return append(append(out, b...), 0x03)
}

// zstdStored writes one frame with raw blocks (RFC 8878 section 3.1.1).
func zstdStored(b []byte) []byte {
	const block = 100 << 10
	out := binary.LittleEndian.AppendUint32(nil, 0xfd2fb528)
	out = append(out, 0x80|0x20) // 4 bytes of content size, single segment
	out = binary.LittleEndian.AppendUint32(out, uint32(len(b)))
	for {
		n := min(block, len(b))
		last := n == len(b)
		head := uint32(n) << 3
		if last {
			head |= 1
		}
		out = append(append(out, byte(head), byte(head>>8), byte(head>>16)), b[:n]...)
		b = b[n:]
		if last {
			return out
		}
	}
}

// zipped puts the data as file NAME into an archive, beside an honest one.
func zipped(c *call, b []byte) ([]byte, error) {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, f := range []struct{ name, text string }{{"README.txt", "An archive of notes.\n"}, {c.text(0, "notes.txt"), string(b)}} {
		e, err := w.Create(f.name)
		if err != nil {
			return nil, err
		}
		if _, err := io.WriteString(e, f.text); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

// named makes an archive of one file that is called as the data says.
func named(c *call, b []byte) ([]byte, error) {
	as := &call{args: []string{string(b)}}
	if c.text(0, "zip") == "tar" {
		return tarred(as, []byte("nothing\n"))
	}
	return zipped(as, []byte("nothing\n"))
}

func tarred(c *call, b []byte) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range []struct{ name, text string }{{"README.txt", "An archive of notes.\n"}, {c.text(0, "notes.txt"), string(b)}} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.text)), Format: tar.FormatUSTAR}); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, f.text); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

// awsChunks is the coding aws-chunked without signatures.
func awsChunks(c *call, b []byte) ([]byte, error) {
	var out bytes.Buffer
	for size := c.number(0, 64<<10); len(b) > 0; {
		n := min(size, len(b))
		fmt.Fprintf(&out, "%x\r\n%s\r\n", n, b[:n])
		b = b[n:]
	}
	out.WriteString("0\r\n\r\n")
	return out.Bytes(), nil
}
