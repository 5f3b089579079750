package process

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/terminal"
)

// A terminal of the user's is never passed in: the cage has its own, with a
// name in its own /dev and the size of the user's. What is typed is not read
// here, as a test is in no terminal's foreground.
func TestTerminal(t *testing.T) {
	needNamespaces(t)
	master, slave, err := terminal.OpenPTY("/dev/ptmx")
	if err != nil {
		t.Skipf("needs pseudo terminal: %v", err)
	}
	defer master.Close()
	unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 99})
	spec := shell(project(t), `tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all-three; echo x > /dev/tty; exit 5`)
	spec.Stdin, spec.Stdout, spec.Stderr = slave, slave, slave
	p, err := Backend{}.Start(t.Context(), spec, func(l cage.Listeners) error { closeListeners(l); return nil })
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1024)
		for {
			n, err := master.Read(buf)
			out.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	st, err := p.Wait()
	slave.Close()
	<-done
	if err != nil || st.Code != 5 {
		t.Errorf("%+v %v", st, err)
	}
	for _, want := range []string{"/dev/pts/0", "33 99", "all-three"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in %q", want, out.String())
		}
	}
}
