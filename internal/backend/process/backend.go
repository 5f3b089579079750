// Package process is the isolation "process": Linux namespaces round any
// command, made by our own binary executing itself again. It needs no image,
// no daemon, no setuid helper and no privilege, and works for root and for
// ordinary users alike.
//
// # How a cage is made
//
// Start runs /proc/self/exe in new user, mount, pid, network, ipc, uts and
// cgroup namespaces with only the caller's own ids mapped. That process, pid 1
// of the cage ("init"), makes every address local to the cage, opens the
// listening sockets and passes them out over a socket pair; builds the view of
// the file system; waits until the gateway serves the listeners; gives up all
// privileges; and only then starts the command as its child. When init ends,
// for whatever reason, the kernel ends everything in the namespace, and init
// ends with its parent.
//
// # What is left
//
// A UNIX socket that a host process creates in a writable directory of the
// cage after the cage has started can be connected to where the kernel has no
// Landlock right for it. Files in the working directory that the user runs on
// purpose (a Makefile, a test) are the agent's to write.
package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/terminal"
)

// Backend makes cages of isolation "process". The zero Backend is ready.
type Backend struct{}

var _ cage.Backend = Backend{}

// Name returns "process".
func (Backend) Name() string { return "process" }

// Start makes a cage; see cage.Backend. Errors that the user can do something
// about have a method Hint.
func (Backend) Start(ctx context.Context, spec cage.Spec, attach func(cage.Listeners) error) (cage.Process, error) {
	if len(spec.Command) == 0 {
		return nil, errors.New("cannot start a cage: no command")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkStdio(spec); err != nil {
		return nil, err
	}
	p := &Process{spec: spec, started: time.Now(), ended: make(chan struct{})}
	if err := p.boot(); err != nil {
		return nil, err
	}
	if err := p.bringUp(ctx, attach); err != nil {
		p.abandon()
		return nil, err
	}
	go p.watch()
	go func() {
		select {
		case <-ctx.Done():
			_ = p.Kill()
		case <-p.ended:
		}
	}()
	return p, nil
}

// checkStdio refuses standard descriptors that are a way out by themselves: a
// directory's ".." leads into the host's file system.
func checkStdio(spec cage.Spec) error {
	for i, f := range []*os.File{spec.Stdin, spec.Stdout, spec.Stderr} {
		if f == nil {
			continue
		}
		st, err := f.Stat()
		if err != nil {
			return fmt.Errorf("cannot use descriptor %d for the cage: %w", i, err)
		}
		if st.IsDir() || st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0 {
			return hinted(nil, "redirect it to a file or a pipe", "cannot use descriptor %d for the cage: it is a directory or a block device", i)
		}
	}
	return nil
}

// Process is a cage that runs.
type Process struct {
	spec    cage.Spec
	cmd     *exec.Cmd
	launch  *os.File // write end of the pipe
	control int      // our end of the control socket
	sendMu  sync.Mutex
	closed  bool // control is closed, under sendMu
	started time.Time

	plan    *plan
	guards  *registration
	refused *refusals
	packets *os.File
	session *terminal.Session
	sockets func() // ends the watch for refused sockets
	gone    chan struct{}
	ended   chan struct{}

	status   cage.Status
	err      error
	findings []Finding
}

var _ cage.Process = (*Process)(nil)

// boot starts init in its namespaces. It does not know yet what it is for: the
// plan is made while the kernel and the runtime get it going.
func (p *Process) boot() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	theirs := os.NewFile(uintptr(pair[1]), "control")
	defer theirs.Close()
	r, w, err := os.Pipe()
	if err != nil {
		unix.Close(pair[0])
		return err
	}
	defer r.Close()
	p.control, p.launch = pair[0], w
	p.cmd = initCommand(p.spec, theirs, r)
	p.gone = make(chan struct{})
	if err := p.fork(); err != nil {
		unix.Close(pair[0])
		w.Close()
		return namespaceError(err)
	}
	return nil
}

// initCaps is what init needs in its own namespaces until it is confined. An
// ordinary user's id keeps capabilities across exec only as ambient ones
// (capabilities(7)).
var initCaps = []uintptr{unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_SYS_ADMIN}

func initCommand(spec cage.Spec, files ...*os.File) *exec.Cmd {
	uid, gid := os.Geteuid(), os.Getegid()
	cmd := &exec.Cmd{
		Path: "/proc/self/exe",
		Args: []string{initName},
		// One thread at a time and no collector: init does one thing after
		// the other, and every thread has to be confined.
		Env:        []string{"GOMAXPROCS=1", "GOGC=off"},
		Dir:        "/",
		ExtraFiles: files,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
				unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
			AmbientCaps: initCaps,
			Setsid:      true,
			Pdeathsig:   syscall.SIGKILL,
		},
	}
	// A terminal of the user's is not even held by init: the cage has its own.
	own, _ := terminal.Replace([3]*os.File{spec.Stdin, spec.Stdout, spec.Stderr})
	if f := spec.Stdin; f != nil && !own[0] {
		cmd.Stdin = f
	}
	if f := spec.Stdout; f != nil && !own[1] {
		cmd.Stdout = f
	}
	if f := spec.Stderr; f != nil && !own[2] {
		cmd.Stderr = f
	}
	return cmd
}

// fork starts init from a thread that lives as long as it does: the signal
// for a dead parent is sent when the thread that forked ends (prctl(2)).
func (p *Process) fork() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // the status came by the control socket
			close(p.gone)
		}
	}()
	return <-started
}

// bringUp takes init from its start to the running command.
func (p *Process) bringUp(ctx context.Context, attach func(cage.Listeners) error) error {
	stop := context.AfterFunc(ctx, func() { p.cmd.Process.Kill() })
	defer stop()
	if err := p.prepare(); err != nil {
		return err
	}
	m, fds, err := p.expect(msgListeners)
	if err != nil {
		return err
	}
	listeners, err := p.listeners(m, fds)
	if err != nil {
		return err
	}
	if err := attach(listeners); err != nil {
		return err
	}
	if err := p.tell(message{Kind: msgAttached}); err != nil {
		// Init may have said why it ended.
		_, _, err := p.expect(msgConfined)
		return err
	}
	m, fds, err = p.expect(msgConfined)
	if err == nil {
		err = p.join(m, fds)
	}
	if err == nil {
		m, fds, err = p.expect(msgStarted, msgExit)
		closeAll(fds)
	}
	if err != nil {
		return cmp.Or(ctx.Err(), err)
	}
	if m.Kind == msgExit {
		// The command could not be run: that is a status, not an error.
		p.setExit(m)
	}
	return nil
}

// afterPlan is for tests of what changes between the check and the mount.
var afterPlan func()

// prepare plans the cage, puts guards up on the host, and hands the plan over.
func (p *Process) prepare() error {
	defer p.launch.Close()
	plan, err := newPlan(p.spec)
	if err != nil {
		return err
	}
	p.plan = plan
	if afterPlan != nil {
		afterPlan()
	}
	if p.guards, err = plan.guard(); err != nil {
		return err
	}
	if err := newScope(p.spec, p.cmd.Process.Pid); err != nil {
		return err
	}
	return writeLaunch(p.launch, plan.launch)
}

// expect receives one message of the given kinds, or the error that init ended with.
func (p *Process) expect(kinds ...string) (message, []int, error) {
	m, fds, err := receive(p.control)
	switch {
	case err == io.EOF:
		return m, nil, errors.New("cannot start the cage: its first process ended without a reason")
	case err != nil:
		return m, nil, fmt.Errorf("cannot start the cage: %w", err)
	case m.Kind == msgError:
		closeAll(fds)
		return m, nil, remoteError(m)
	case !slices.Contains(kinds, m.Kind):
		closeAll(fds)
		return m, nil, fmt.Errorf("cannot start the cage: unexpected message %q", m.Kind)
	}
	return m, fds, nil
}

// listeners makes Go's listeners of the descriptors. On an error all of them
// are closed.
func (p *Process) listeners(m message, fds []int) (cage.Listeners, error) {
	var l cage.Listeners
	var err error
	for i, fd := range fds {
		if err != nil {
			unix.Close(fd)
			continue
		}
		err = p.adopt(&l, m.FDs[i], os.NewFile(uintptr(fd), string(m.FDs[i])))
	}
	if err == nil && l.Proxy == nil {
		err = errors.New("the cage offers no proxy listener")
	}
	if err != nil {
		closeListeners(l)
		return cage.Listeners{}, err
	}
	for _, m := range p.plan.writable() {
		l.HostPaths = append(l.HostPaths, m.path)
	}
	p.refused = newRefusals()
	l.Refused = p.refused.out
	if p.packets != nil {
		go p.refused.readPackets(p.packets)
	}
	return l, nil
}

func (p *Process) adopt(l *cage.Listeners, role fdRole, f *os.File) error {
	if role == rolePackets {
		p.packets = f
		return nil
	}
	defer f.Close()
	if role == roleDNS {
		c, err := net.FilePacketConn(f)
		if err == nil {
			l.DNS = append(l.DNS, c)
		}
		return err
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return err
	}
	switch role {
	case roleProxy:
		l.Proxy = ln
	case roleTCP:
		l.Transparent = append(l.Transparent, ln)
	case roleDNSStream:
		l.DNSStream = append(l.DNSStream, ln)
	default:
		ln.Close()
		return fmt.Errorf("unexpected descriptor %q", role)
	}
	return nil
}

func closeListeners(l cage.Listeners) {
	if l.Proxy != nil {
		l.Proxy.Close()
	}
	for _, ln := range append(l.Transparent, l.DNSStream...) {
		ln.Close()
	}
	for _, c := range l.DNS {
		c.Close()
	}
}

// join connects the host's side to what comes out of a confined cage.
func (p *Process) join(m message, fds []int) error {
	for i, fd := range fds {
		switch m.FDs[i] {
		case roleTerminal:
			if err := p.relayTerminal(os.NewFile(uintptr(fd), "terminal")); err != nil {
				return err
			}
		case roleNotify:
			p.watchSockets(os.NewFile(uintptr(fd), "notify"))
		default:
			unix.Close(fd)
		}
	}
	return nil
}

func (p *Process) setExit(m message) {
	p.status = cage.Status{Code: m.Code, Signal: syscall.Signal(m.Signal)}
	if m.Text != "" {
		p.err = hinted(nil, "", "%s", m.Text)
	}
}

// watch waits for the end.
func (p *Process) watch() {
	reported := p.status.Code != 0 || p.err != nil
	for !reported {
		m, fds, err := receive(p.control)
		closeAll(fds)
		if err != nil {
			break
		}
		switch m.Kind {
		case msgExit:
			p.setExit(m)
			reported = true
		case msgError:
			p.err = remoteError(m)
		case msgStopped:
			if p.session != nil {
				p.session.Stopped()
				_ = p.Signal(syscall.SIGCONT)
			}
		}
	}
	<-p.gone
	if !reported && p.err == nil {
		// Init never told: it was killed, and the command with it.
		p.status = cage.Status{Code: 128 + int(syscall.SIGKILL), Signal: syscall.SIGKILL}
	}
	if err := p.release(); p.err == nil {
		p.err = err
	}
	close(p.ended)
}

// abandon ends a cage that did not get as far as its command.
func (p *Process) abandon() {
	_ = p.cmd.Process.Kill() // an error says that it is gone
	<-p.gone
	_ = p.release() // the next start clears up what is left
}

// release gives back all that was made on the host. Init is gone by now.
func (p *Process) release() error {
	p.closeTerminal()
	p.sendMu.Lock()
	p.closed = true
	unix.Close(p.control)
	p.sendMu.Unlock()
	if p.packets != nil && p.refused != nil {
		p.refused.end(p.packets)
	}
	packets := make(chan struct{})
	go func() {
		// The kernel waits for a grace period before a packet socket is
		// gone (synchronize_net), some milliseconds.
		defer close(packets)
		if p.packets != nil {
			p.packets.Close()
		}
	}()
	defer func() { <-packets }()
	if p.sockets != nil {
		p.sockets()
	}
	if p.refused != nil {
		p.refused.close()
	}
	err := p.guards.release()
	p.findings = p.guards.findings(p.started)
	return err
}

func (p *Process) tell(m message) error {
	p.sendMu.Lock()
	defer p.sendMu.Unlock()
	if p.closed {
		return os.ErrProcessDone
	}
	return send(p.control, m)
}

// Wait implements cage.Process. A command that could not be run at all has
// both, the code 126 or 127 and the error that says why.
func (p *Process) Wait() (cage.Status, error) {
	<-p.ended
	return p.status, p.err
}

// Signal implements cage.Process.
func (p *Process) Signal(sig syscall.Signal) error {
	return p.tell(message{Kind: msgSignal, Number: int(sig)})
}

// Kill implements cage.Process.
func (p *Process) Kill() error {
	err := p.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
