//go:build linux

package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type echo struct {
	Name  string
	Value []byte
}

func serve(t *testing.T, dir string, handlers map[string]Handler) *Server {
	t.Helper()
	s, err := Listen(dir, handlers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func handlers(got chan<- echo) map[string]Handler {
	return map[string]Handler{
		"echo": func(_ context.Context, args json.RawMessage) (any, error) {
			var e echo
			err := json.Unmarshal(args, &e)
			got <- e
			return e, err
		},
		"fail":  func(context.Context, json.RawMessage) (any, error) { return nil, errors.New("cannot do it: no") },
		"panic": func(context.Context, json.RawMessage) (any, error) { panic("secret text") },
	}
}

func TestCall(t *testing.T) {
	// Longer than an address may be.
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 150), "cage")
	if n, err := Call(context.Background(), dir, "echo", nil, nil); n != 0 || !errors.Is(err, ErrNobody) {
		t.Errorf("without a directory: %d, %v", n, err)
	}
	got := make(chan echo, 4)
	s := serve(t, dir, handlers(got))
	want := echo{"KEY", []byte("a\x00\n\"" + strings.Repeat("x", 64<<10))}
	var back echo
	if n, err := Call(context.Background(), dir, "echo", want, &back); n != 1 || err != nil || string(back.Value) != string(want.Value) {
		t.Fatalf("%d, %v", n, err)
	}
	if e := <-got; e.Name != "KEY" || string(e.Value) != string(want.Value) {
		t.Errorf("got %.50v", e)
	}
	for op, text := range map[string]string{"fail": "cannot do it: no", "panic": "the gateway failed", "unknown": "does not know"} {
		if n, err := Call(context.Background(), dir, op, nil, nil); n != 0 || err == nil || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "secret text") {
			t.Errorf("%s: %d, %v", op, n, err)
		}
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left := sockets(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestAllAreTold: one directory run twice at a time has two gateways, and a
// changed secret concerns both.
func TestAllAreTold(t *testing.T) {
	dir := t.TempDir()
	got := make(chan echo, 4)
	serve(t, dir, handlers(got))
	serve(t, dir, handlers(got))
	if n, err := Call(context.Background(), dir, "echo", echo{Name: "A"}, nil); n != 2 || err != nil {
		t.Errorf("%d told, %v", n, err)
	}
	serve(t, dir, map[string]Handler{})
	if n, err := Call(context.Background(), dir, "echo", echo{Name: "A"}, nil); n != 2 || err == nil {
		t.Errorf("one refuses: %d told, %v", n, err)
	}
}

// TestDeadSocketsAreCleared: what a killed gateway leaves is nobody.
func TestDeadSocketsAreCleared(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "1-a"+suffix), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if n, err := Call(context.Background(), dir, "echo", nil, nil); n != 0 || !errors.Is(err, ErrNobody) {
		t.Errorf("%d, %v", n, err)
	}
	serve(t, dir, nil)
	if left := sockets(dir); len(left) != 1 {
		t.Errorf("sockets: %v", left)
	}
}

func TestMalformedCalls(t *testing.T) {
	dir := t.TempDir()
	got := make(chan echo, 1)
	s := serve(t, dir, handlers(got))
	for name, line := range map[string]string{
		"no JSON": "hello\n", "cut off": `{"op":"echo"`, "too long": strings.Repeat(" ", maxLine+10) + "\n",
		"another version": `{"protocol":2,"op":"echo"}` + "\n", "no version": `{"op":"echo"}` + "\n",
	} {
		c, err := dial(context.Background(), s.path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = c.Write([]byte(line)) // the server may hang up before its end
			_ = c.(*net.UnixConn).CloseWrite()
		}()
		answer, err := bufio.NewReader(c).ReadString('\n')
		c.Close()
		if err == nil && !strings.Contains(answer, `"ok":false`) {
			t.Errorf("%s: %s", name, answer)
		}
	}
	if len(got) != 0 {
		t.Error("a malformed call was carried out")
	}
}
