package process

import (
	"io"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReset: the last words of a side that ended with something unread arrive.
func TestReset(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	if err := send(pair[0], message{Kind: msgAttached}); err != nil {
		t.Fatal(err)
	}
	if err := send(pair[1], message{Kind: msgError, Text: "why"}); err != nil {
		t.Fatal(err)
	}
	unix.Close(pair[1])
	if m, _, err := receive(pair[0]); err != nil || m.Text != "why" {
		t.Errorf("got %+v, %v", m, err)
	}
	if _, _, err := receive(pair[0]); err != io.EOF {
		t.Errorf("got %v at the end", err)
	}
}
