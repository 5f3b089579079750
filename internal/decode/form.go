package decode

import (
	"bytes"
	"mime"
	"strings"
)

// form decodes the names and values of a form, which differ from what percent
// alone gives by the plus. A text that nobody declared to be a form is one if
// it looks like one.
func (d *decoder) form(p int, declared bool) {
	src := d.layers[p].Data
	if !declared && !looksLikeForm(src) {
		return
	}
	start := 0
	for start <= len(src) && d.err == nil {
		end := indexByte(src, start, '&')
		if end < 0 {
			end = len(src)
		}
		mid := bytes.IndexByte(src[start:end], '=')
		if mid < 0 {
			d.field(p, "", start, end)
		} else {
			mid += start
			d.field(p, "", start, mid)
			d.field(p, string(src[start:min(mid, start+256)]), mid+1, end)
		}
		start = end + 1
	}
}

// looksLikeForm wants a short name with a value that has something to decode,
// or both of what a form's encoding makes, and nothing that it would not leave.
func looksLikeForm(b []byte) bool {
	const longestName = 128
	percent := bytes.IndexByte(b, '%') >= 0
	plus := bytes.IndexByte(b, '+') >= 0
	if n := bytes.IndexByte(b[:min(len(b), longestName)], '='); n > 0 {
		plus = plus && bytes.IndexByte(b[n:], '+') > 0
		if !plus && !percent {
			return false
		}
	} else if !plus || !percent {
		return false
	}
	for _, c := range b {
		if is(c, breakClass) {
			return false
		}
	}
	return true
}

func (d *decoder) field(p int, name string, start, end int) {
	src := d.layers[p].Data[start:end]
	if bytes.IndexByte(src, '+') < 0 && bytes.IndexByte(src, '%') < 0 {
		return
	}
	out := make([]byte, 0, len(src))
	for i := 0; i < len(src); i++ {
		d.escape = d.escape[:0]
		switch n := 0; src[i] {
		case '+':
			out = append(out, ' ')
		case '%':
			if n = d.percent(src, i); n > 0 {
				out = append(out, d.escape...)
				i += n - 1
				continue
			}
			fallthrough
		default:
			out = append(out, src[i])
		}
	}
	d.add(Layer{Kind: Form, Parent: p, Name: name, Data: out, Start: start, End: end})
}

const mostParts = 10_000

// multipart finds the parts of a message (RFC 2046 section 5.1) at the lines
// that begin with the boundary. Framing that is broken is no error: the bytes
// of all parts were looked at in the layer around them, and a part only says
// how to read some of them once more.
func (d *decoder) multipart(p int, boundary string) {
	switch {
	case boundary == "":
		return
	case boundary == ambiguous, len(boundary) > 256: // RFC 2046 has 70
		d.fail(errBoundary)
		return
	}
	src := d.layers[p].Data
	delimiter := []byte("--" + boundary)
	start := -1 // of the part at hand
	for i, parts := 0, 0; i <= len(src) && d.err == nil; {
		n := bytes.Index(src[i:], delimiter)
		end := len(src)
		if n >= 0 {
			end = i + n
		}
		if n >= 0 && end > 0 && src[end-1] != '\n' {
			i = end + 1
			continue
		}
		if start >= 0 {
			if parts++; parts > mostParts {
				d.fail(errLayers)
				return
			}
			d.part(p, start, trimLine(src, start, end))
		}
		if n < 0 {
			return
		}
		i = end + len(delimiter)
		start = i
		if line := indexByte(src, i, '\n'); line >= 0 {
			start = line + 1
			i = line // the next delimiter may be the next line
		}
	}
}

// trimLine takes the line end off that belongs to the delimiter.
func trimLine(b []byte, start, end int) int {
	if end > start && b[end-1] == '\n' {
		end--
		if end > start && b[end-1] == '\r' {
			end--
		}
	}
	return end
}

// part appends one part, and what its encoding for transfer hides.
func (d *decoder) part(p, start, end int) {
	src := d.layers[p].Data
	body := start
	l := Layer{Kind: Part, Parent: p}
	transfer, disposition := "", ""
	for body < end {
		stop := indexByte(src[:end], body, '\n')
		if stop < 0 {
			stop = end - 1
		}
		line := strings.TrimRight(string(src[body:min(stop+1, body+4096)]), "\r\n")
		body = stop + 1
		if line == "" {
			break
		}
		switch name, value, _ := strings.Cut(line, ":"); strings.ToLower(strings.TrimSpace(name)) {
		case "content-type":
			l.Type = strings.TrimSpace(value)
		case "content-transfer-encoding":
			transfer = strings.ToLower(strings.TrimSpace(value))
		case "content-disposition":
			disposition = value
		}
	}
	l.Name, l.Data, l.Start, l.End = partName(disposition), src[body:end:end], body, end
	i := d.share(l)
	if i < 0 {
		return
	}
	if data := d.transferred(transfer, l.Data); data != nil {
		l.Parent, l.Data, l.Start, l.End = i, data, 0, end-body
		l.Kind = Base64
		if transfer == "quoted-printable" {
			l.Kind = QuotedPrintable
		}
		d.add(l)
	}
}

func partName(disposition string) string {
	_, params, err := mime.ParseMediaType(disposition)
	if err != nil {
		_, params = laxType(disposition)
	}
	if params["filename"] != "" {
		return params["filename"]
	}
	return params["name"]
}

// transferred undoes a Content-Transfer-Encoding (RFC 2045 section 6). Of
// base64 everything that is no digit is skipped, as section 6.8 wants it.
func (d *decoder) transferred(transfer string, b []byte) []byte {
	switch transfer {
	case "base64":
		d.joined = d.joined[:0]
		for _, c := range b {
			if is(c, base64Class) {
				d.joined = append(d.joined, c)
			}
		}
		return decode64(make([]byte, 0, len(d.joined)*3/4+2), d.joined)
	case "quoted-printable":
		return unquoteAll(b)
	}
	return nil
}

func unquoteAll(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] != '=' {
			out = append(out, b[i])
			continue
		}
		if v := hexNumber(b, i+1, 2); v >= 0 {
			out = append(out, byte(v))
			i += 2
			continue
		}
		e := i + 1
		for e < len(b) && (b[e] == ' ' || b[e] == '\t' || b[e] == '\r') {
			e++
		}
		if e < len(b) && b[e] == '\n' {
			i = e
			continue
		}
		out = append(out, '=')
	}
	return out
}
