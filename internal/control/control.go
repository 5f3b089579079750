//go:build linux

// Package control is how a command reaches the gateways of a cage that run
// now: a UNIX socket each, in a directory that only the user can enter and
// that no cage is shown.
//
// A caller sends one line of JSON and gets one back. Who may call is decided
// by the kernel's word for the peer's user (SO_PEERCRED, unix(7)), and by
// nothing that the peer says.
package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// protocol is the version that both sides must speak.
	protocol = 1
	// maxLine bounds a line in bytes: a secret of 64 KiB in base64 fits.
	maxLine = 256 << 10
	// callTime is how long a call may take on either side.
	callTime = 10 * time.Second
	// maxCalls is how many calls are answered at one time.
	maxCalls = 16

	suffix = ".sock"
)

// request is the line that a caller sends.
type request struct {
	Protocol int             `json:"protocol"`
	Op       string          `json:"op"`
	Args     json.RawMessage `json:"args,omitempty"`
}

// reply is the line that it gets.
type reply struct {
	OK     bool            `json:"ok"`
	Error  string          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// Handler answers one kind of call. Its error's text is sent to the caller.
type Handler func(ctx context.Context, args json.RawMessage) (result any, err error)

// Server answers calls until it is closed.
type Server struct {
	listener *net.UnixListener
	path     string
	handlers map[string]Handler
	ctx      context.Context
	cancel   context.CancelFunc
	slots    chan struct{}
	work     sync.WaitGroup
}

// Listen makes a socket in dir, which it makes too, for this process. What
// other processes left there when they died is removed.
func Listen(dir string, handlers map[string]Handler) (*Server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the control directory: %w", err)
	}
	for _, path := range sockets(dir) {
		if !alive(path) {
			os.Remove(path)
		}
	}
	name := strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36) + suffix
	l, err := listenIn(dir, name)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for commands: %w", err)
	}
	s := &Server{listener: l, path: filepath.Join(dir, name), handlers: handlers, slots: make(chan struct{}, maxCalls)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.work.Go(s.accept)
	return s, nil
}

// listenIn binds by a short name through a descriptor of the directory, as the
// path in an address has 107 bytes at most (unix(7)).
func listenIn(dir, name string) (*net.UnixListener, error) {
	short, done, err := shortPath(dir, name)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by then the short name leads nowhere
	return l, nil
}

func shortPath(dir, name string) (path string, done func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name), func() { d.Close() }, nil
}

// sockets are those in a directory, in a fixed order. There is none in a
// directory that is not there.
func sockets(dir string) []string {
	found, _ := filepath.Glob(filepath.Join(dir, "*"+suffix)) // fails for a bad pattern only
	slices.Sort(found)
	return found
}

func alive(path string) bool {
	c, err := dial(context.Background(), path)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	short, done, err := shortPath(filepath.Dir(path), filepath.Base(path))
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	return d.DialContext(ctx, "unix", short)
}

func (s *Server) accept() {
	for {
		c, err := s.listener.AcceptUnix()
		if err != nil {
			return // closed, or nothing that another try would mend
		}
		select {
		case s.slots <- struct{}{}:
			s.work.Go(func() {
				defer func() { <-s.slots }()
				s.serve(c)
			})
		default:
			c.Close()
		}
	}
}

// Close ends the server and what it is answering, and removes the socket.
func (s *Server) Close() error {
	s.cancel()
	err := s.listener.Close()
	os.Remove(s.path)
	s.work.Wait()
	return err
}

func (s *Server) serve(c *net.UnixConn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(callTime)) // fails only on a closed connection
	defer context.AfterFunc(s.ctx, func() { c.Close() })()
	var out reply
	result, err := s.answer(c)
	if err == nil {
		out.Result, err = json.Marshal(result)
	}
	if out.OK = err == nil; !out.OK {
		out.Error, out.Result = err.Error(), nil
	}
	if line, err := json.Marshal(out); err == nil {
		_, _ = c.Write(append(line, '\n')) // the caller may be gone
	}
}

func (s *Server) answer(c *net.UnixConn) (result any, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the gateway failed")
		}
	}()
	if err := sameUser(c); err != nil {
		return nil, err
	}
	var r request
	if err := readLine(c, &r); err != nil {
		return nil, err
	}
	if r.Protocol != protocol {
		return nil, fmt.Errorf("cannot answer: the gateway speaks version %d of the protocol, the command version %d", protocol, r.Protocol)
	}
	h, ok := s.handlers[r.Op]
	if !ok {
		return nil, errors.New("cannot answer: the gateway does not know this command")
	}
	ctx, cancel := context.WithTimeout(s.ctx, callTime)
	defer cancel()
	return h(ctx, r.Args)
}

// sameUser refuses everybody but the user that this process runs as, and root.
func sameUser(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if failed != nil || peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return errors.New("cannot answer: the caller is another user")
	}
	return nil
}

func readLine(r io.Reader, into any) error {
	line, err := bufio.NewReaderSize(io.LimitReader(r, maxLine), 4<<10).ReadBytes('\n')
	if err != nil {
		return errors.New("cannot read the message: it is cut off or too long")
	}
	if err := json.Unmarshal(line, into); err != nil {
		return errors.New("cannot read the message: it is malformed")
	}
	return nil
}

// ErrNobody says that no gateway runs which could be told.
var ErrNobody = errors.New("no gateway of the cage is running")

// Call asks every gateway that listens in dir. It returns how many carried the
// call out, and ErrNobody when there is none. One that refuses or does not
// answer is an error, whatever the others say; result is what the last one
// answered.
func Call(ctx context.Context, dir, op string, args, result any) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	encoded, err := json.Marshal(args)
	if err != nil {
		return 0, err
	}
	line, err := json.Marshal(request{Protocol: protocol, Op: op, Args: encoded})
	if err != nil {
		return 0, err
	}
	told := 0
	var failed error
	for _, path := range sockets(dir) {
		c, err := dial(ctx, path)
		if err != nil {
			continue // it died without a word
		}
		if err := call(ctx, c, append(line, '\n'), result); err != nil {
			failed = errors.Join(failed, fmt.Errorf("cannot reach gateway %s: %w", strings.TrimSuffix(filepath.Base(path), suffix), err))
			continue
		}
		told++
	}
	if told == 0 && failed == nil {
		return 0, ErrNobody
	}
	return told, failed
}

func call(ctx context.Context, c net.Conn, line []byte, result any) error {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if _, err := c.Write(line); err != nil {
		return err
	}
	var r reply
	if err := readLine(c, &r); err != nil {
		return err
	}
	if !r.OK {
		return errors.New(r.Error)
	}
	if result == nil || len(r.Result) == 0 {
		return nil
	}
	return json.Unmarshal(r.Result, result)
}
