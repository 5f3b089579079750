package process

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/cage"
)

// Descriptors that the init process inherits. Nothing else is passed to it,
// and nothing about the cage is in its arguments or its environment, where any
// process of the user could read it.
const (
	controlFD = 3 // SOCK_SEQPACKET, messages below
	launchFD  = 4 // pipe with one launch, see writeLaunch
)

// launch is what init needs to know.
type launch struct {
	Command []string
	Dir     string
	Env     []string
	Host    string
	Ports   []uint16
	Ops     []op
	Files   int // RLIMIT_NOFILE
	Procs   int // RLIMIT_NPROC
	Without []cage.Layer
	TTY     []int // which of 0, 1, 2 are to be the cage's own terminal
	// What Landlock leaves open on top of the mounts.
	ReadOnly, ReadWrite, Devices []string
}

// Kinds of messages between the two ends of the control socket.
const (
	msgListeners = "listeners" // init has made the network; descriptors attached
	msgAttached  = "attached"  // the gateway serves the listeners
	msgConfined  = "confined"  // init has given up its privileges; descriptors of terminal and notifications attached
	msgStarted   = "started"   // that is verified, and the command runs
	msgSignal    = "signal"
	msgStopped   = "stopped" // by a signal of its terminal
	msgExit      = "exit"
	msgError     = "error"
)

type message struct {
	Kind   string
	FDs    []fdRole `json:",omitempty"`
	Number int      `json:",omitempty"` // a signal
	Code   int      `json:",omitempty"`
	Signal int      `json:",omitempty"`
	Text   string   `json:",omitempty"`
	Hint   string   `json:",omitempty"`
	Errno  int      `json:",omitempty"`
	Stage  string   `json:",omitempty"`
}

// fdRole says what a passed descriptor is.
type fdRole string

const (
	roleProxy     fdRole = "proxy"
	roleTCP       fdRole = "tcp"
	roleDNS       fdRole = "dns"
	roleDNSStream fdRole = "dns-stream"
	rolePackets   fdRole = "packets"
	roleTerminal  fdRole = "terminal"
	roleNotify    fdRole = "notify"
)

// maxMessage and maxFDs bound what one message may hold. SCM_MAX_FD of the
// kernel is 253.
const (
	maxMessage = 64 << 10
	maxFDs     = 250
)

// send writes one message with its descriptors.
func send(sock int, m message, fds ...int) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > maxMessage || len(fds) > maxFDs {
		return errors.New("message is too long")
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for {
		err = unix.Sendmsg(sock, b, oob, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// receive reads one message. The end of the other side is io.EOF.
func receive(sock int) (message, []int, error) {
	buf := make([]byte, maxMessage)
	oob := make([]byte, unix.CmsgSpace(4*maxFDs))
	var n, oobn, flags int
	var err error
	for {
		n, oobn, flags, _, err = unix.Recvmsg(sock, buf, oob, unix.MSG_CMSG_CLOEXEC)
		// A reset is reported once, and before what the other side sent until
		// then: it ended without reading all of what it was sent.
		if err != unix.EINTR && err != unix.ECONNRESET {
			break
		}
	}
	if err != nil {
		return message{}, nil, err
	}
	if n == 0 {
		return message{}, nil, io.EOF
	}
	fds, err := rights(oob[:oobn])
	if err != nil {
		return message{}, nil, err
	}
	var m message
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.New("message was cut off")
	} else {
		err = json.Unmarshal(buf[:n], &m)
	}
	if err == nil && len(m.FDs) != len(fds) {
		err = fmt.Errorf("%d descriptors for %d roles", len(fds), len(m.FDs))
	}
	if err != nil {
		closeAll(fds)
		return message{}, nil, err
	}
	return m, fds, nil
}

func rights(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for i := range msgs {
		got, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// errorOf is an error as it travels from init to its parent.
func errorOf(stage string, err error) message {
	m := message{Kind: msgError, Text: err.Error(), Stage: stage}
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		m.Hint = h.Hint()
	}
	var no syscall.Errno
	if errors.As(err, &no) {
		m.Errno = int(no)
	}
	if len(m.Text) > 8<<10 {
		m.Text = m.Text[:8<<10]
	}
	return m
}

// remoteError is the other end of errorOf.
func remoteError(m message) error {
	if m.Hint == "" && m.Errno == int(unix.EPERM) && m.Stage != stageStart {
		m.Hint = namespaceHint(unix.EPERM, readSwitch)
	}
	return hinted(nil, m.Hint, "%s", m.Text)
}

// maxLaunch bounds the JSON of a launch and the content of its files.
const maxLaunch = 64 << 20

// writeLaunch writes the number of bytes of the JSON, the JSON, and then the
// content of every file in the order of the steps. The trust stores are half a
// megabyte, which JSON would turn into text, and look at each letter of.
func writeLaunch(w *os.File, l launch) error {
	// The reader is busy making the network: let it find everything there.
	_, _ = unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 1<<20)
	ops := slices.Clone(l.Ops)
	var files []byte
	for i, o := range ops {
		ops[i].Length = len(o.Data)
		files = append(files, o.Data...)
	}
	l.Ops = ops
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	b := make([]byte, 0, 8+len(text)+len(files))
	b = binary.NativeEndian.AppendUint64(b, uint64(len(text)))
	b = append(append(b, text...), files...)
	_, err = w.Write(b)
	return err
}

func readLaunch(r io.Reader) (launch, error) {
	var l launch
	head := make([]byte, 8)
	if _, err := io.ReadFull(r, head); err != nil {
		return l, err
	}
	text, err := readSome(r, binary.NativeEndian.Uint64(head))
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	if err != nil {
		return l, err
	}
	for i, o := range l.Ops {
		if l.Ops[i].Data, err = readSome(r, uint64(o.Length)); err != nil {
			return l, err
		}
	}
	return l, nil
}

func readSome(r io.Reader, n uint64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	if n > maxLaunch {
		return nil, errors.New("it is too long")
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}
