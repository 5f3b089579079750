package main

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// machine answers what this computer has, for the user who asks.
type machine struct{}

// probeChild is the argument with which skipcheck starts itself in new
// namespaces, to see whether it may.
const probeChild = "-probe-child"

// probes are the words that a skip may use besides the names of programs.
var probes = map[string]func() bool{
	"root":                 func() bool { return os.Geteuid() == 0 },
	"ordinary user":        func() bool { return os.Geteuid() != 0 },
	"user namespaces":      userNamespaces,
	"Linux":                func() bool { return true },
	"IPv6":                 func() bool { return listens("[::1]:0") },
	"loopback":             func() bool { return listens("127.0.0.1:0") },
	"Landlock":             landlock,
	"KVM":                  func() bool { return opens("/dev/kvm") },
	"terminal":             func() bool { return opens("/dev/ptmx") },
	"pseudo terminal":      func() bool { return opens("/dev/ptmx") },
	"TUN device":           func() bool { return opens("/dev/net/tun") },
	"FUSE device":          func() bool { return opens("/dev/fuse") },
	"systemd user session": userManager,
	"delegated cgroup":     userManager,
	"cgroup delegation":    userManager,
	"Go module proxy":      moduleProxy,
	"Go tool chain":        func() bool { return program("go") },
	"Python requests":      func() bool { return succeeds("python3", "-c", "import requests") },
	"Python clients":       pythonClients,
	"git http-backend":     gitBackend,
	// The race detector needs cgo; what cannot be tested with it is tested
	// again without it, and only there the skip has no excuse.
	"CGO_ENABLED=0":    func() bool { return os.Getenv("CGO_ENABLED") == "0" },
	"agentcage binary": func() bool { return os.Getenv("AGENTCAGE_BIN") != "" },
}

// has reports whether the machine has need, and whether need is a word that
// can be looked up at all.
func (machine) has(need string) (present, known bool) {
	if probe, ok := probes[need]; ok {
		return probe(), true
	}
	name, _ := strings.CutSuffix(need, " program")
	name, _ = strings.CutSuffix(name, " in PATH")
	if name == "" || strings.ContainsAny(name, " /") {
		return false, false
	}
	return program(name), true
}

func program(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}

func succeeds(name string, args ...string) bool {
	return exec.Command(name, args...).Run() == nil
}

func listens(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func opens(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// userNamespaces starts a child in the namespaces that a cage is made of.
// Debian's and Ubuntu's switches against them show only when one is tried.
func userNamespaces() bool {
	self, err := os.Executable()
	if err != nil {
		return false
	}
	cmd := exec.Command(self, probeChild)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
			syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	return cmd.Run() == nil
}

// landlock asks for the ABI version (landlock_create_ruleset(2) with
// LANDLOCK_CREATE_RULESET_VERSION), which fails where Landlock is off.
func landlock() bool {
	const createRuleset, version = 444, 1
	abi, _, errno := syscall.Syscall(createRuleset, 0, 0, version)
	return errno == 0 && abi >= 1
}

func userManager() bool {
	return succeeds("systemctl", "--user", "is-system-running", "--wait") ||
		succeeds("systemctl", "--user", "show", "--property=Version")
}

// pythonClients are what tools/needs.sh installs, and tools/test.sh names.
func pythonClients() bool {
	_, err := os.Stat(os.Getenv("AGENTCAGE_PYTHON") + "/.complete")
	return os.Getenv("AGENTCAGE_PYTHON") != "" && err == nil
}

func gitBackend() bool {
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return false
	}
	_, err = os.Stat(strings.TrimSpace(string(out)) + "/git-http-backend")
	return err == nil
}

// moduleProxy asks the first proxy that the go command is set up with.
func moduleProxy() bool {
	out, err := exec.Command("go", "env", "GOPROXY").Output()
	if err != nil {
		return false
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), ",")
	if !strings.HasPrefix(first, "http") {
		return false
	}
	client := http.Client{Timeout: 10 * time.Second}
	res, err := client.Get(strings.TrimSuffix(first, "/") + "/golang.org/x/sync/@v/list")
	if err != nil {
		return false
	}
	defer func() { _ = res.Body.Close() }()
	return res.StatusCode == http.StatusOK
}
