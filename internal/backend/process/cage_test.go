package process

import (
	"testing"

	"github.com/agentcage/agentcage/internal/cage"
)

func TestExitCodes(t *testing.T) {
	dir := project(t)
	for _, tt := range []struct {
		name    string
		command []string
		code    int
		sig     int
		fails   bool
	}{
		{"success", []string{"true"}, 0, 0, false},
		{"code", []string{"sh", "-c", "exit 7"}, 7, 0, false},
		{"signal", []string{"sh", "-c", "kill -TERM $$"}, 143, 15, false},
		{"killed", []string{"sh", "-c", "kill -KILL $$"}, 137, 9, false},
		{"missing", []string{"no-such-program"}, 127, 0, true},
		{"missing path", []string{"/no/such/program"}, 127, 0, true},
		{"not executable", []string{"/etc/passwd"}, 126, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := run{spec: cage.Spec{Command: tt.command, Dir: dir}}.run(t)
			if o.status.Code != tt.code || int(o.status.Signal) != tt.sig || (o.err != nil) != tt.fails {
				t.Errorf("got %+v, %v; output %s", o.status, o.err, o.out)
			}
		})
	}
}
