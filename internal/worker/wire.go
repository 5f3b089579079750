package worker

import (
	"encoding/json"
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// Kinds of requests to a spawner. It answers none of them: whatever there is to
// tell comes over the worker's own connection.
const (
	kindOptions = "options" // comes first, once
	kindStart   = "start"   // with the worker's end of its connection
	kindKill    = "kill"
)

type request struct {
	Kind    string
	ID      uint64   `json:",omitempty"`
	Memory  int64    `json:",omitempty"`
	Options *Options `json:",omitempty"`
}

const maxRequest = 64 << 10

// send writes one request, with one descriptor at most.
func send(sock int, r request, fds ...int) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(b) > maxRequest {
		return errors.New("request is too long")
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

// receive reads one request, and the descriptor that came with it or -1. The
// end of the other side is io.EOF.
func receive(sock int) (request, int, error) {
	buf, oob := make([]byte, maxRequest), make([]byte, unix.CmsgSpace(4*8))
	var n, oobn int
	var err error
	for {
		n, oobn, _, _, err = unix.Recvmsg(sock, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return request{}, -1, err
	}
	if n == 0 {
		return request{}, -1, io.EOF
	}
	fd := -1
	for _, got := range rights(oob[:oobn]) {
		if fd >= 0 {
			unix.Close(got)
			continue
		}
		fd = got
	}
	var r request
	err = json.Unmarshal(buf[:n], &r)
	if err != nil && fd >= 0 {
		unix.Close(fd)
		fd = -1
	}
	return r, fd, err
}

func rights(oob []byte) []int {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var fds []int
	for i := range msgs {
		if got, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}
