package sigv4

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Limits of a chunked body: S3 takes chunks of 8 KiB to 5 GiB, and clients
// send 64 KiB to 1 MiB.
const (
	maxChunk       = 16 << 20
	maxChunkLine   = 256
	maxTrailerSize = 8 << 10
	signatureMark  = ";chunk-signature="
	trailerMark    = "x-amz-trailer-signature:"
)

var errFraming = errors.New("cannot sign again: the chunks of the body are malformed")

// Signed reports whether the body consists of chunks that are signed.
func (s *Signer) Signed() bool {
	return s.claim.hash == streamSigned || s.claim.hash == streamTrailer
}

// Chunks returns the body with every chunk's signature made anew. The length
// stays the same. It holds one chunk in memory, and a chunk that is malformed,
// too large or not ended is an error, so that the server never sees a body
// that looks whole.
func (s *Signer) Chunks(body io.Reader) io.Reader {
	return &chunkReader{s: s, in: bufio.NewReaderSize(body, 64<<10), prev: s.seed}
}

type chunkReader struct {
	s    *Signer
	in   *bufio.Reader
	prev string
	out  bytes.Buffer
	err  error
	data []byte
}

func (c *chunkReader) Read(p []byte) (int, error) {
	for c.out.Len() == 0 {
		if c.err != nil {
			return 0, c.err
		}
		c.out.Reset()
		c.err = c.next()
	}
	return c.out.Read(p)
}

// next signs one chunk into c.out, and returns io.EOF behind the last.
func (c *chunkReader) next() error {
	line, err := c.line()
	if err != nil {
		return err
	}
	size, signature, ok := strings.Cut(line, signatureMark)
	n, err := strconv.ParseUint(size, 16, 32)
	if err != nil || !ok || len(signature) != sha256.Size*2 || n > maxChunk {
		return errFraming
	}
	if n == 0 {
		return c.last(size)
	}
	c.data = slices.Grow(c.data[:0], int(n)+2)[:n+2]
	if _, err := io.ReadFull(c.in, c.data); err != nil {
		return broken(err)
	}
	if string(c.data[n:]) != "\r\n" {
		return errFraming
	}
	c.head(size, c.data[:n])
	c.out.Write(c.data)
	return nil
}

func (c *chunkReader) head(size string, data []byte) {
	sum := sha256.Sum256(data)
	c.prev = c.s.sign(algorithm+"-PAYLOAD", c.prev, emptyPayload, hex.EncodeToString(sum[:]))
	c.out.WriteString(size + signatureMark + c.prev + "\r\n")
}

// last signs the empty chunk and what follows it: nothing but an empty line,
// or trailer fields with their own signature.
func (c *chunkReader) last(size string) error {
	c.head(size, nil)
	var signed strings.Builder
	for total := 0; ; {
		line, err := c.line()
		if err != nil {
			return err
		}
		if total += len(line); total > maxTrailerSize {
			return errFraming
		}
		if line == "" {
			c.out.WriteString("\r\n")
			break
		}
		if strings.HasPrefix(line, trailerMark) {
			sum := sha256.Sum256([]byte(signed.String()))
			c.prev = c.s.sign(algorithm+"-TRAILER", c.prev, hex.EncodeToString(sum[:]))
			c.out.WriteString(trailerMark + c.prev + "\r\n")
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || c.s.claim.hash != streamTrailer {
			return errFraming
		}
		signed.WriteString(strings.ToLower(name) + ":" + strings.TrimSpace(value) + "\n")
		c.out.WriteString(line + "\r\n")
	}
	if _, err := c.in.ReadByte(); err != io.EOF {
		return errFraming
	}
	return io.EOF
}

// line reads up to CRLF and returns what is before it.
func (c *chunkReader) line() (string, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return "", broken(err)
	}
	if len(line) > maxChunkLine+maxTrailerSize || !bytes.HasSuffix(line, []byte("\r\n")) {
		return "", errFraming
	}
	return string(line[:len(line)-2]), nil
}

// broken tells a body that ended too early from one that could not be read.
func broken(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF || errors.Is(err, bufio.ErrBufferFull) {
		return errFraming
	}
	return err
}
