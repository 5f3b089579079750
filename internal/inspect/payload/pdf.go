package payload

import "bytes"

// pdf looks into every stream of a file of ISO 32000, and at what is between
// them. Streams that are not undone here are judged as they stand.
func pdf(x *examiner, data []byte) (int, bool) {
	end := bytes.LastIndex(data, []byte("%%EOF"))
	if end < 0 {
		return 0, false
	}
	end += len("%%EOF")
	end += len(data[end:]) - len(bytes.TrimLeft(data[end:], "\r\n"))
	body := data[:end]
	var between []byte
	for streams := 0; ; streams++ {
		i := bytes.Index(body, []byte("stream"))
		if i < 0 || streams > 100000 {
			break
		}
		head, rest := body[:i], body[i+len("stream"):]
		rest = bytes.TrimPrefix(bytes.TrimPrefix(rest, []byte("\r")), []byte("\n"))
		n := bytes.Index(rest, []byte("endstream"))
		if n < 0 {
			break
		}
		between = append(between, head...)
		x.stream(head, rest[:n])
		body = rest[n+len("endstream"):]
	}
	x.foreign(append(between, body...))
	return end, true
}

// stream looks into one stream, whose dictionary ends what is before it.
func (x *examiner) stream(head, data []byte) {
	dict := head[max(0, bytes.LastIndex(head, []byte("obj"))):]
	if !bytes.Contains(dict, []byte("FlateDecode")) && !bytes.Contains(dict, []byte("/Fl")) {
		x.content(bytes.TrimRight(data, "\r\n"))
		return
	}
	plain, end, ok := x.inflate(data)
	if !ok {
		x.foreign(data)
		return
	}
	x.content(plain)
	x.foreign(data[end:])
}
