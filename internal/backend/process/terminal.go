package process

import (
	"context"
	"os"
	"syscall"
	"time"

	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/terminal"
)

// drainTime is how long the last output of a cage may take to be written to
// the user's terminal.
const drainTime = 2 * time.Second

// replaced lists which of the standard descriptors become the cage's own
// terminal.
func replaced(spec cage.Spec) []int {
	own, _ := terminal.Replace([3]*os.File{spec.Stdin, spec.Stdout, spec.Stderr})
	var n []int
	for i, yes := range own {
		if yes {
			n = append(n, i)
		}
	}
	return n
}

// relayTerminal joins the user's terminal to the cage's.
func (p *Process) relayTerminal(master *os.File) error {
	own, _ := terminal.Replace([3]*os.File{p.spec.Stdin, p.spec.Stdout, p.spec.Stderr})
	c := terminal.Config{
		Master: master,
		// A pager at the other end of the pipe may be the one that reads keys.
		Lazy:   !own[1],
		Signal: p.passOn,
	}
	if own[0] {
		c.In = p.spec.Stdin
	}
	switch {
	case own[1]:
		c.Out = p.spec.Stdout
	case own[2]:
		c.Out = p.spec.Stderr
	}
	s, err := terminal.Start(context.Background(), c)
	if err != nil {
		master.Close()
		return err
	}
	p.session = s
	return nil
}

func (p *Process) passOn(s os.Signal) {
	if sig, ok := s.(syscall.Signal); ok {
		_ = p.Signal(sig)
	}
}

func (p *Process) closeTerminal() {
	if p.session == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	_ = p.session.Drain(ctx)
	p.session.Close()
}
