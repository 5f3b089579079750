package process

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Error is a failure that has a way out: Error says what could not be had and
// why, Hint what the user can do about it.
type Error struct {
	Msg  string
	hint string
	Err  error
}

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Msg
	}
	return e.Msg + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Hint is one sentence on what to do, or empty.
func (e *Error) Hint() string { return e.hint }

func hinted(err error, hint, format string, args ...any) error {
	return &Error{Msg: fmt.Sprintf(format, args...), hint: hint, Err: err}
}

// namespaceError explains why the kernel refused to make the namespaces, from
// the switches that distributions use to forbid them.
func namespaceError(err error) error {
	return hinted(err, namespaceHint(err, readSwitch), "cannot make a user namespace for the cage")
}

func readSwitch(name string) string {
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func namespaceHint(err error, sysctl func(string) string) string {
	switch {
	case sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "this system's AppArmor forbids user namespaces to ordinary programs; allow them with `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or install an AppArmor profile for agentcage that says `userns,`"
	case sysctl("kernel/unprivileged_userns_clone") == "0":
		return "user namespaces are off; switch them on with `sudo sysctl -w kernel.unprivileged_userns_clone=1`"
	case sysctl("user/max_user_namespaces") == "0":
		return "user namespaces are limited to none; allow some with `sudo sysctl -w user.max_user_namespaces=10000`"
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS):
		return "a limit on namespaces is reached; see the sysctl user.max_*_namespaces, or end other cages"
	case errors.Is(err, unix.EINVAL):
		return "this kernel was built without user or network namespaces (CONFIG_USER_NS, CONFIG_NET_NS)"
	default:
		return "inside a container, its runtime must allow user namespaces (with Docker: --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined)"
	}
}
