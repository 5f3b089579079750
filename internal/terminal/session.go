//go:build linux

package terminal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Config of a session on the host's side.
type Config struct {
	Master *os.File // of the cage's PTY; the session closes it, also when Start fails
	In     *os.File // the user's terminal, read; nil opens /dev/tty
	Out    *os.File // the user's terminal, written; nil opens /dev/tty
	// Lazy leaves the terminal alone until Take is called: for a command
	// whose output goes to a pipe, where another program (a pager) may be
	// the one that reads the keys.
	Lazy bool
	// Signal gets SIGINT, SIGTERM, SIGHUP and SIGQUIT that were sent to this
	// process. When nil, they restore the terminal and end the process.
	Signal func(os.Signal)
}

// Session carries bytes between the user's terminal and a cage's PTY. Its
// methods are safe for concurrent use.
//
// While it lives the terminal is raw, and only Close, Stopped, RestoreAll and
// fatal signals undo that. A panic outside of the goroutine that defers Close
// or RestoreAll ends the process without either, as nothing can intercept it.
type Session struct {
	config  Config
	in, out int
	master  int
	tty     *os.File // /dev/tty when we opened it
	wake    int      // eventfd, readable once the session ends
	signals chan os.Signal
	closing chan struct{}
	drained chan struct{}
	change  chan struct{} // the input may go on
	workers sync.WaitGroup
	once    sync.Once
	stop    func() bool // of the context

	mu     sync.Mutex
	taken  bool
	ended  bool
	raw    bool
	cooked *unix.Termios // as it was before we first touched it
}

// pollForeground is how often a session in the background looks whether it
// still is: a shell's fg sends no signal to a job that runs.
const pollForeground = 200 * time.Millisecond

// Relay starts a session with the defaults of Config.
func Relay(ctx context.Context, master, in, out *os.File) (*Session, error) {
	return Start(ctx, Config{Master: master, In: in, Out: out})
}

// Start starts a session: the window's size at once and on SIGWINCH, raw mode
// while this process is in the foreground, and only then are keys read. It
// ends with ctx or Close.
func Start(ctx context.Context, c Config) (*Session, error) {
	s := &Session{
		config: c, taken: !c.Lazy,
		signals: make(chan os.Signal, 16),
		closing: make(chan struct{}), drained: make(chan struct{}), change: make(chan struct{}, 1),
	}
	if err := s.open(); err != nil {
		c.Master.Close()
		if s.tty != nil {
			s.tty.Close()
		}
		return nil, fmt.Errorf("cannot use the terminal: %w", err)
	}
	register(s)
	signal.Notify(s.signals, unix.SIGWINCH, unix.SIGCONT, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	s.resize()
	s.update()
	s.workers.Add(3)
	go s.copyOut()
	go s.copyIn()
	go s.control()
	s.stop = context.AfterFunc(ctx, func() { s.end() })
	return s, nil
}

func (s *Session) open() error {
	in, out := s.config.In, s.config.Out
	if in == nil || out == nil {
		tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			return err
		}
		s.tty = tty
	}
	if in == nil {
		in = s.tty
	}
	if out == nil {
		out = s.tty
	}
	if !isTerminal(in) {
		return fmt.Errorf("%s is not one", in.Name())
	}
	s.in, s.out, s.master = int(in.Fd()), int(out.Fd()), int(s.config.Master.Fd())
	if err := unix.SetNonblock(s.master, true); err != nil {
		return err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	s.wake = wake
	return err
}

// foreground says whether this process may touch the terminal without being stopped for it.
func (s *Session) foreground() bool {
	group, err := unix.IoctlGetInt(s.in, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// update makes the terminal raw when it is ours to use and is not yet.
func (s *Session) update() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || !s.taken {
		return
	}
	if !s.foreground() {
		s.raw = false
		return
	}
	if !s.raw {
		if err := s.makeRaw(); err != nil {
			return
		}
		s.raw = true
		s.resize()
	}
	select { // also when nothing changed: copyIn may have looked at the wrong moment
	case s.change <- struct{}{}:
	default:
	}
}

// makeRaw also gives the cage's PTY the user's settings (erase character and
// the like) the first time.
func (s *Session) makeRaw() error {
	now, err := unix.IoctlGetTermios(s.in, unix.TCGETS)
	if err != nil {
		return err
	}
	if s.cooked == nil {
		s.cooked = now
		_ = unix.IoctlSetTermios(s.master, unix.TCSETS, now) // a comfort: the cage's end has sane defaults
	}
	raw := *s.cooked
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	if !s.config.Lazy { // else the other programs of the pipe go on printing to this terminal
		raw.Oflag &^= unix.OPOST
	}
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(s.in, unix.TCSETS, &raw)
}

// restore gives the terminal back as it was, if we changed it.
func (s *Session) restore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.raw && s.cooked != nil && s.foreground() {
		_ = unix.IoctlSetTermios(s.in, unix.TCSETS, s.cooked) // fails only when the terminal is gone
	}
	s.raw = false
}

func (s *Session) active() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.raw && s.foreground()
}

// resize passes the window's size on; the kernel sends SIGWINCH in the cage
// when it has changed.
func (s *Session) resize() {
	if size, err := unix.IoctlGetWinsize(s.in, unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(s.master, unix.TIOCSWINSZ, size) // a comfort, and the next SIGWINCH tries again
	}
}

func (s *Session) control() {
	defer s.workers.Done()
	tick := time.NewTicker(pollForeground)
	defer tick.Stop()
	for {
		select {
		case <-s.closing:
			return
		case <-tick.C:
			s.update()
		case sig := <-s.signals:
			s.handle(sig)
		}
	}
}

func (s *Session) handle(sig os.Signal) {
	switch {
	case sig == unix.SIGWINCH:
		s.resize()
	case sig == unix.SIGCONT: // a shell may have changed the modes meanwhile
		s.mu.Lock()
		s.raw = false
		s.mu.Unlock()
		s.update()
	case s.config.Signal != nil:
		s.config.Signal(sig)
	default:
		RestoreAll()
		signal.Reset(sig)
		unix.Kill(os.Getpid(), sig.(unix.Signal))
	}
}

// ready waits for events on fd; false means that the session has ended.
func (s *Session) ready(fd int, events int16) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(s.wake), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		return err == nil && fds[1].Revents == 0
	}
}

const chunk = 32 << 10

// copyOut writes what the cage prints until its end of the PTY is closed,
// which reads as EIO after the last byte.
func (s *Session) copyOut() {
	defer s.workers.Done()
	defer close(s.drained)
	buf := make([]byte, chunk)
	for s.ready(s.master, unix.POLLIN) {
		n, err := unix.Read(s.master, buf)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil || n == 0:
			return
		}
		if !s.writeAll(s.out, buf[:n]) {
			return
		}
	}
}

func (s *Session) copyIn() {
	defer s.workers.Done()
	buf := make([]byte, chunk)
	for {
		if !s.active() {
			select {
			case <-s.closing:
				return
			case <-s.change:
			}
			continue
		}
		if !s.ready(s.in, unix.POLLIN) {
			return
		}
		if !s.active() { // the keys are somebody else's by now
			continue
		}
		n, err := unix.Read(s.in, buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil || n == 0 || !s.writeAll(s.master, buf[:n]) {
			return
		}
	}
}

func (s *Session) writeAll(fd int, b []byte) bool {
	for len(b) > 0 {
		if !s.ready(fd, unix.POLLOUT) {
			return false
		}
		n, err := unix.Write(fd, b)
		if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return false
		}
		b = b[max(n, 0):]
	}
	return true
}

// Take ends laziness: keys go to the cage from now on.
func (s *Session) Take() {
	s.mu.Lock()
	s.taken = true
	s.mu.Unlock()
	s.update()
}

// Stopped is called when the command in the cage has stopped: it restores the
// terminal, stops this process and its group as Ctrl-Z would, and returns when
// it was continued; then tell the cage to continue the command. Where there is
// nobody who could continue us (an orphaned group), or SIGTSTP is ignored, it
// returns at once, as Ctrl-Z does nothing there.
func (s *Session) Stopped() {
	s.restore()
	defer s.update()
	if signal.Ignored(unix.SIGTSTP) || orphaned() {
		return
	}
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, unix.SIGCONT)
	defer signal.Stop(continued)
	if err := unix.Kill(0, unix.SIGTSTP); err != nil {
		return
	}
	select {
	case <-continued:
	case <-s.closing:
	}
}

// orphaned says that no ancestor outside of our process group is in our
// session (POSIX: orphaned process group).
func orphaned() bool {
	group := unix.Getpgrp()
	session, _ := unix.Getsid(0)
	for p := os.Getppid(); p > 1; p = parent(p) {
		if g, err := unix.Getpgid(p); err != nil || g == group {
			continue
		}
		sid, err := unix.Getsid(p)
		return err != nil || sid != session
	}
	return true
}

// parent reads the fourth field of proc_pid_stat(5); the second is in
// parentheses and may hold anything.
func parent(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	text := string(stat)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	p, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return p
}

// Drain returns when the cage has closed its end and all output is written,
// the session has ended, or ctx ends, whose error it then returns.
func (s *Session) Drain(ctx context.Context) error {
	select {
	case <-s.drained:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close restores the terminal and ends the session without waiting for
// output: call Drain before. It can be called often.
func (s *Session) Close() error {
	s.stop()
	s.end()
	return nil
}

func (s *Session) end() {
	s.once.Do(func() {
		s.restore()
		s.mu.Lock()
		s.ended = true
		s.mu.Unlock()
		signal.Stop(s.signals)
		unregister(s)
		close(s.closing)
		// Only a full counter refuses the write, and it starts at 0.
		_, _ = unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		go func() { // a write to a terminal that is held with Ctrl-S may take its time
			s.workers.Wait()
			s.config.Master.Close()
			unix.Close(s.wake)
			if s.tty != nil {
				s.tty.Close()
			}
		}()
	})
}

var live struct {
	sync.Mutex
	sessions map[*Session]struct{}
}

func register(s *Session) {
	live.Lock()
	defer live.Unlock()
	if live.sessions == nil {
		live.sessions = make(map[*Session]struct{})
	}
	live.sessions[s] = struct{}{}
}

func unregister(s *Session) {
	live.Lock()
	defer live.Unlock()
	delete(live.sessions, s)
}

// RestoreAll restores the terminal of every live session: defer it in main,
// which covers a panic there, and call it before os.Exit.
func RestoreAll() {
	live.Lock()
	defer live.Unlock()
	for s := range live.sessions {
		s.restore()
	}
}
