package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func open(t *testing.T, o Options) (*Writer, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	w, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w, path
}

// records reads files one after the other and fails on anything that is no record.
func records(t *testing.T, paths ...string) []Record {
	t.Helper()
	var all []Record
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for r, err := range Read(bytes.NewReader(b)) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, r)
		}
	}
	return all
}

func put(t *testing.T, s Sink, r Record) {
	t.Helper()
	if err := s.Put(r); err != nil {
		t.Fatal(err)
	}
}

func TestWriterKeeps(t *testing.T) {
	tests := []struct {
		r    Record
		kept bool // without KeepAllowed
	}{
		{Record{Decision: "blocked"}, true},
		{Record{Decision: "flagged"}, true},
		{Record{Decision: ""}, true},
		{Record{Decision: "allowed"}, false},
		{Record{Decision: "allowed", SecretsInjected: []string{"K"}}, true},
		{Record{Decision: "allowed", SecretsRedacted: []string{"K"}}, true},
		{Record{Decision: "allowed", Inspectors: []Finding{{Name: "secrets", Action: "blocked", Mode: "observe"}}}, true},
		{Record{Decision: "allowed", Kind: KindReload}, true},
		{Record{Decision: "allowed", Kind: KindUpstream}, true},
		{Record{Decision: "allowed", Kind: KindTunnel}, false},
	}
	for _, all := range []bool{false, true} {
		for _, tt := range tests {
			w, path := open(t, Options{})
			w.SetKeepAllowed(all)
			put(t, w, tt.r)
			if got := len(records(t, path)) == 1; got != (tt.kept || all) {
				t.Errorf("keep allowed %v, %+v: kept %v", all, tt.r, got)
			}
		}
	}
}

// TestWriterFile is rules 72 and 80: the mode is final from the start, and a
// link or pipe that somebody planted is not written through.
func TestWriterFile(t *testing.T) {
	w, path := open(t, Options{})
	if w.Path() != path {
		t.Errorf("path %q", w.Path())
	}
	put(t, w, Record{Host: "a"})
	if st, err := os.Stat(path); err != nil || st.Mode().Perm()&^0o640 != 0 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if r := records(t, path)[0]; r.Host != "a" || r.ID == "" || r.Time.IsZero() {
		t.Errorf("record %+v", r)
	}
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(link, Options{}); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a symbolic link: %v", err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{pipe, dir, filepath.Join(dir, "no", "file")} {
		if _, err := Open(p, Options{}); err == nil {
			t.Errorf("%s is taken", p)
		}
	}
	wide := filepath.Join(dir, "wide")
	if err := os.WriteFile(wide, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(wide, 0o666); err != nil {
		t.Fatal(err)
	}
	ww, err := Open(wide, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer ww.Close()
	if st, _ := os.Stat(wide); st.Mode().Perm() != 0o640 {
		t.Errorf("an existing file keeps mode %v", st.Mode())
	}
	if _, err := Open(os.DevNull, Options{}); err != nil {
		t.Errorf("the null device: %v", err)
	}
}

// TestWriterRotates is rules 114 and 137: capped, and every record is in one
// of the two files, in order.
func TestWriterRotates(t *testing.T) {
	w, path := open(t, Options{MaxBytes: 2000})
	for i := range 15 {
		put(t, w, Record{Host: fmt.Sprint(i)})
	}
	old, err := os.Stat(path + ".1")
	if err != nil {
		t.Fatal(err)
	}
	if st, _ := os.Stat(path); st.Size() > 2000 || old.Size() > 2000 {
		t.Errorf("sizes %d and %d", st.Size(), old.Size())
	}
	rs := records(t, path+".1", path)
	last := 14
	for i := len(rs) - 1; i >= 0; i-- {
		if rs[i].Host != fmt.Sprint(last) {
			t.Fatalf("record %d is host %s, want %d", i, rs[i].Host, last)
		}
		last--
	}
	if len(rs) < 10 {
		t.Errorf("%d records left", len(rs))
	}
}

// TestWriterWhenRotationFails: the record is written all the same, the caller
// learns of it, and the file still has an end.
func TestWriterWhenRotationFails(t *testing.T) {
	w, path := open(t, Options{MaxBytes: 1000})
	if err := os.MkdirAll(filepath.Join(path+".1", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	failed := 0
	for range 50 {
		if w.Put(Record{Host: "a"}) != nil {
			failed++
		}
	}
	n, err := w.Errors()
	if failed == 0 || n != uint64(failed) || err == nil {
		t.Errorf("%d calls failed, %d counted, %v", failed, n, err)
	}
	if st, _ := os.Stat(path); st.Size() > 2000 {
		t.Errorf("the file grew to %d bytes", st.Size())
	}
	if got := len(records(t, path)); got <= 50-failed {
		t.Errorf("%d records, none beyond the cap was written", got)
	}
	if err := os.RemoveAll(path + ".1"); err != nil {
		t.Fatal(err)
	}
	put(t, w, Record{Host: "again"})
}

// TestWriterFollowsItsName: when a log rotator moved the file away, a new one
// is begun.
func TestWriterFollowsItsName(t *testing.T) {
	w, path := open(t, Options{})
	put(t, w, Record{Host: "a", Time: noon})
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	put(t, w, Record{Host: "b", Time: noon.Add(2 * checkEvery)})
	if rs := records(t, path); len(rs) != 1 || rs[0].Host != "b" {
		t.Errorf("new file: %+v", rs)
	}
	if rs := records(t, path+".moved"); len(rs) != 1 || rs[0].Host != "a" {
		t.Errorf("moved file: %+v", rs)
	}
}

func TestWriterAfterTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, []byte(`{"ts": "2026-`), 0o640); err != nil {
		t.Fatal(err)
	}
	w, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, w, Record{Host: "a"})
	put(t, w, Record{Host: "b"})
	w.Close()
	b, _ := os.ReadFile(path)
	var hosts, bad int
	for _, err := range Read(bytes.NewReader(b)) {
		if err != nil {
			bad++
		} else {
			hosts++
		}
	}
	if hosts != 2 || bad != 1 {
		t.Errorf("%d records and %d bad lines in %s", hosts, bad, b)
	}
	if err := w.Put(Record{}); err == nil {
		t.Error("a closed writer takes records")
	}
}

func TestWriterConcurrently(t *testing.T) {
	w, path := open(t, Options{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				if err := w.Put(Record{Host: fmt.Sprintf("%d.%d", i, j)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(records(t, path)); n != 400 {
		t.Errorf("%d records", n)
	}
}

func TestRead(t *testing.T) {
	good := string((&Record{Time: noon, Host: "a", Count: 2}).Append(nil, nil))
	in := good + "\n" + "nonsense\n" + strings.Repeat("x", 3*maxRecord) + "\n" + good + strings.TrimSuffix(good, "\n")
	var got []string
	for r, err := range Read(strings.NewReader(in)) {
		if err != nil {
			got = append(got, "error")
			continue
		}
		got = append(got, r.Host)
	}
	if fmt.Sprint(got) != "[a error error a]" {
		t.Errorf("read %v", got)
	}
	for range Read(strings.NewReader(in)) {
		break
	}
}

type failing struct{}

func (failing) Put(Record) error { return errors.New("no space") }

func TestMulti(t *testing.T) {
	a, pa := open(t, Options{})
	b, pb := open(t, Options{})
	if err := Multi(a, nil, failing{}, b).Put(Record{Host: "x"}); err == nil {
		t.Error("the error is lost")
	}
	ra, rb := records(t, pa), records(t, pb)
	if len(ra) != 1 || len(rb) != 1 || ra[0].ID != rb[0].ID || ra[0].ID == "" || !ra[0].Time.Equal(rb[0].Time) {
		t.Errorf("%+v and %+v", ra, rb)
	}
}

func TestSummary(t *testing.T) {
	var s Summary
	put(t, &s, Record{Host: "good", Decision: "allowed", Reason: "flag text"})
	put(t, &s, Record{Host: "bad", Decision: "blocked", Reason: "r"})
	put(t, &s, Record{Host: "bad", Decision: "blocked", Reason: "r", Count: 4})
	put(t, &s, Record{Host: "odd\x1b[2J\u202e", Reason: `say "no"` + "\n"})
	put(t, &s, Record{Host: "good", Decision: "flagged", Reason: "f"})
	put(t, &s, Record{Kind: KindReload, Decision: "allowed"})
	want := []Row{{"blocked", "bad", "r", 5}, {"blocked", `odd\x1b[2J\u202e`, `say "no"\n`, 1}, {"flagged", "good", "f", 1}, {"allowed", "good", "", 1}}
	if got := s.Snapshot(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v", got)
	}
}

func TestSummaryIsCapped(t *testing.T) {
	s := Summary{Redact: func(x string) string { return strings.ReplaceAll(x, "secret", "#") }}
	for i := range 5 * maxRows {
		put(t, &s, Record{Host: fmt.Sprintf("secret%d.test", i), Reason: strings.Repeat("r", 5000)})
	}
	rows, total := s.Snapshot(), 0
	for _, r := range rows {
		total += r.Count
		if len(r.Reason) > maxRowText+10 || strings.Contains(r.Host, "secret") {
			t.Fatalf("row %+v", r)
		}
	}
	if len(rows) > maxRows+3 || total != 5*maxRows || rows[0].Host != Others {
		t.Errorf("%d rows that count %d, first %+v", len(rows), total, rows[0])
	}
}

func BenchmarkWriterPut(b *testing.B) {
	w, err := Open(os.DevNull, Options{})
	if err != nil {
		b.Fatal(err)
	}
	r := Record{Method: "GET", Host: "api.example.com", Port: 443, Path: "/v1/messages", URL: "https://api.example.com/v1/messages", Reason: "domain not in allowlist: api.example.com"}
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Put(r); err != nil {
			b.Fatal(err)
		}
	}
}

// TestWriterLeavesDevicesAlone keeps the rotation from renaming /dev/null,
// which root can do and nobody wants.
func TestWriterLeavesDevicesAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "device")
	if err := syscall.Mknod(path, syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
		t.Skip("needs root: cannot make a device node")
	}
	w, err := Open(path, Options{MaxBytes: 100})
	if err != nil {
		t.Skip("needs root: cannot open a device node here")
	}
	defer w.Close()
	for range 10 {
		if err := w.Put(Record{Host: "example.com", Reason: strings.Repeat("x", 50)}); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Type()&os.ModeCharDevice == 0 {
		t.Fatalf("the device was rotated: %v, %v", entries, err)
	}
}

// TestSummaryCountsOnce: a request that was allowed and then came to nothing is
// one row, not two.
func TestSummaryCountsOnce(t *testing.T) {
	var s Summary
	for _, r := range []Record{
		{Decision: "allowed", Host: "a"},
		{Decision: "allowed", Host: "a"},
		{Decision: "allowed", Host: "a", Kind: KindUpstream, Reason: "connection refused", Revises: "allowed"},
		{Decision: "allowed", Host: "b"},
		{Decision: "blocked", Host: "b", Reason: "private", Revises: "allowed"},
	} {
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	want := []Row{
		{Decision: "blocked", Host: "b", Reason: "private", Count: 1},
		{Decision: Failed, Host: "a", Reason: "connection refused", Count: 1},
		{Decision: "allowed", Host: "a", Count: 1},
	}
	if got := s.Snapshot(); !slices.Equal(got, want) {
		t.Errorf("rows = %+v", got)
	}
}
