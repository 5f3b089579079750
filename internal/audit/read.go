package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"
)

// Read yields the records of an audit stream in order. A line that is not
// one, or is longer than a record can be, is yielded as an error and the
// reading goes on; a last line without its newline is still being written and
// is left out. An error of the reader itself ends the sequence.
func Read(r io.Reader) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		br := bufio.NewReaderSize(r, maxRecord)
		for n := 1; ; n++ {
			line, err := br.ReadSlice('\n')
			tooLong := errors.Is(err, bufio.ErrBufferFull)
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = br.ReadSlice('\n')
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(Record{}, fmt.Errorf("cannot read audit records: %w", err))
				return
			}
			if !tooLong && len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			rec, err := parse(line, tooLong)
			if err != nil {
				err = fmt.Errorf("cannot read audit record in line %d: %w", n, err)
			}
			if !yield(rec, err) {
				return
			}
		}
	}
}

// wire is a record as it is written.
type wire struct {
	TS              string    `json:"ts"`
	Direction       string    `json:"direction"`
	Method          string    `json:"method"`
	Host            string    `json:"host"`
	Port            uint16    `json:"port"`
	Path            string    `json:"path"`
	URL             string    `json:"url"`
	Decision        string    `json:"decision"`
	Reason          string    `json:"reason"`
	Source          string    `json:"source"`
	SecretsInjected []string  `json:"secrets_injected"`
	SecretsRedacted []string  `json:"secrets_redacted"`
	Inspectors      []Finding `json:"inspectors"`
	Kind            string    `json:"kind"`
	ID              string    `json:"id"`
	Count           int       `json:"count"`
}

func parse(line []byte, tooLong bool) (Record, error) {
	if tooLong {
		return Record{}, errors.New("it is too long")
	}
	var w wire
	if err := json.Unmarshal(line, &w); err != nil {
		return Record{}, err
	}
	ts, err := time.Parse(time.RFC3339Nano, w.TS)
	if err != nil {
		return Record{}, err
	}
	return Record{
		Time: ts.UTC(), Direction: w.Direction, Method: w.Method, Host: w.Host, Port: w.Port, Path: w.Path, URL: w.URL,
		Decision: w.Decision, Reason: w.Reason, Source: w.Source, SecretsInjected: w.SecretsInjected,
		SecretsRedacted: w.SecretsRedacted, Inspectors: w.Inspectors, Kind: w.Kind, ID: w.ID, Count: w.Count,
	}, nil
}
