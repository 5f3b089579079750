package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/audit"
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

// serveDNS serves the cage's DNS as the gateway does.
func serveDNS(l cage.Listeners) {
	h := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(r)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(198, 51, 100, 1)}}
		w.WriteMsg(m)
	})
	for _, c := range l.DNS {
		go dns.ActivateAndServe(nil, c, h)
	}
	for _, ln := range l.DNSStream {
		go dns.ActivateAndServe(ln, nil, h)
	}
}

func serveAll(l cage.Listeners) error {
	go serve(l.Proxy)
	for _, ln := range l.Transparent {
		go serve(ln)
	}
	serveDNS(l)
	return nil
}

// Every address is the gateway, on the ports that were asked for and no other.
func TestEveryAddressIsTheGateway(t *testing.T) {
	spec := probeSpec(t, project(t), "dial", "93.184.215.14:443", "169.254.169.254:80", "10.0.0.1:8443", "127.0.0.1:3128",
		"93.184.215.14:22", "93.184.215.14:3128", "[2606:2800:21f::1]:443", "[2606:2800:21f::1]:22", "[::ffff:8.8.4.4]:443")
	spec.Ports = []uint16{80, 443, 8443}
	o := run{spec: spec, attach: serveAll}.run(t)
	o.want(t, 0,
		`93.184.215.14:443 answered "93.184.215.14:443"`,
		`169.254.169.254:80 answered "169.254.169.254:80"`,
		`10.0.0.1:8443 answered "10.0.0.1:8443"`,
		`127.0.0.1:3128 answered "127.0.0.1:3128"`,
		`93.184.215.14:22 refused: dial tcp 93.184.215.14:22: connect: connection refused`,
		`93.184.215.14:3128 refused:`,
		`[::ffff:8.8.4.4]:443 answered "8.8.4.4:443"`,
	)
	o.refused(t, audit.KindTCP, "93.184.215.14:22")
	o.refused(t, audit.KindTCP, "93.184.215.14:3128")
	if haveIPv6() {
		o.want(t, 0, `[2606:2800:21f::1]:443 answered "[2606:2800:21f::1]:443"`, `[2606:2800:21f::1]:22 refused:`)
		o.refused(t, audit.KindTCP, "[2606:2800:21f::1]:22")
	}
}

func (o outcome) refused(t *testing.T, kind, dest string) {
	t.Helper()
	for _, r := range o.refusals {
		if r.Kind == kind && r.Dest.String() == dest && r.Count > 0 {
			return
		}
	}
	t.Errorf("no refusal of kind %s for %s in %v", kind, dest, o.refusals)
}

func TestDNSAnswersFromTheAddressThatWasAsked(t *testing.T) {
	servers := []string{"8.8.8.8:53", "127.0.0.1:53", "1.1.1.1:53"}
	if haveIPv6() {
		servers = append(servers, "[2001:4860:4860::8888]:53")
	}
	o := run{spec: probeSpec(t, project(t), "query", servers...), attach: serveAll}.run(t)
	for _, s := range servers {
		o.want(t, 0, s+" answered from "+s+" with 198.51.100.1", s+" stream true <nil>")
	}
}

func TestUDPIsRefusedAndSeen(t *testing.T) {
	dests := []string{"93.184.215.14:443", "10.1.2.3:123"}
	if haveIPv6() {
		dests = append(dests, "[2606:2800:21f::1]:443")
	}
	o := run{spec: probeSpec(t, project(t), "udp", dests...), attach: serveAll}.run(t)
	for _, d := range dests {
		o.want(t, 0, d+" refused: read udp")
		o.refused(t, audit.KindUDP, d)
	}
}

func TestRawSocketsAreRefusedAndSeen(t *testing.T) {
	o := run{spec: probeSpec(t, project(t), "raw"), attach: serveAll}.run(t)
	o.want(t, 0)
	if strings.Contains(o.out, "true") {
		t.Errorf("a socket was made:\n%s", o.out)
	}
	if !slices.ContainsFunc(o.refusals, func(r cage.Refusal) bool {
		return r.Kind == audit.KindSocket && strings.Contains(r.Detail, "AF_PACKET")
	}) {
		t.Errorf("no refusal of a packet socket in %v", o.refusals)
	}
}

func TestLoopbackOfTheAgentsOwn(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3: it is what runs in the cage")
	}
	o := run{spec: shell(project(t), `python3 -c '
import socket
s = socket.create_server(("127.0.0.1", 3000))
c = socket.create_connection(("127.0.0.1", 3000))
a, _ = s.accept()
c.send(b"hi")
print("own service says", a.recv(2).decode())
'`)}.run(t)
	o.want(t, 0, "own service says hi")
}

func TestOnlyThreeDescriptors(t *testing.T) {
	// What the caller's own parent forgot to close must not come along.
	leak, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	o := run{spec: probeSpec(t, project(t), "fds")}.run(t)
	o.want(t, 0)
	if got := strings.Fields(o.out); !slices.Equal(got, strings.Fields("fd 0 fd 1 fd 2")) {
		t.Errorf("descriptors: %q", o.out)
	}
}

func TestInitIsOpaque(t *testing.T) {
	o := run{spec: shell(project(t), `cat /proc/1/environ /proc/1/maps; ls /proc/1/fd /proc/1/cwd/; readlink /proc/1/exe; cat /proc/self/status | grep -c CapEff; kill -KILL 1; kill -TERM 1; echo alive`)}.run(t)
	o.want(t, 0, "alive")
	for _, bad := range []string{"GOMAXPROCS", "heap", "socket:", "agentcage"} {
		if strings.Contains(o.out, bad) {
			t.Errorf("init shows %q:\n%s", bad, o.out)
		}
	}
}

func TestDirectoryAsStandardInput(t *testing.T) {
	needNamespaces(t)
	d, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	spec := probeSpec(t, project(t), "escape")
	spec.Stdin = d
	_, err = Backend{}.Start(t.Context(), spec, func(l cage.Listeners) error { closeListeners(l); return nil })
	if err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("got %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	dir := project(t)
	t.Setenv("MY_SECRET_TOKEN", "s3cr3t")
	t.Setenv("NO_PROXY", "*")
	t.Setenv("SOCKS_PROXY", "socks5://elsewhere:1080")
	t.Setenv("FTP_PROXY", "http://elsewhere:1080")
	t.Setenv("LANG", "C.UTF-8")
	spec := probeSpec(t, dir, "env")
	spec.Env = []string{"EXTRA=1", "EXTRA=2"}
	spec.CA = testCA(t)
	o := run{spec: spec}.run(t)
	o.want(t, 0, "EXTRA=2", "HTTP_PROXY=http://127.0.0.1:3128", "https_proxy=http://127.0.0.1:3128",
		"NO_PROXY=localhost,127.0.0.1,::1", "LANG=C.UTF-8", "SSL_CERT_FILE="+bundlePath, "NODE_EXTRA_CA_CERTS="+caPath, "PWD="+dir)
	for _, bad := range []string{"s3cr3t", "EXTRA=1", "elsewhere", "XDG_STATE_HOME"} {
		if strings.Contains(o.out, bad) {
			t.Errorf("environment has %q", bad)
		}
	}
}

func TestViewOfTheFileSystem(t *testing.T) {
	dir := project(t)
	other := t.TempDir()
	os.WriteFile(filepath.Join(other, "private"), []byte("host"), 0o644)
	ro := filepath.Join(t.TempDir(), "ro")
	os.Mkdir(ro, 0o755)
	os.WriteFile(filepath.Join(ro, "f"), []byte("shown"), 0o644)
	rw := filepath.Join(t.TempDir(), "rw")
	os.Mkdir(rw, 0o755)
	spec := shell(dir, `
echo new > file && echo wrote-dir
echo new > "$1/f" || echo ro-refused
cat "$1/f"
echo new > "$2/f" && echo wrote-rw
cat "$3/private" || echo hidden
for p in /usr/x /etc/x /x /bin/x /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/x /dev/x; do
	{ echo x > $p; } 2>/dev/null && echo "WROTE $p"
done
for p in /tmp/x /run/x /var/tmp/x "$HOME/x" /dev/shm/x; do
	{ echo x > $p; } 2>/dev/null || echo "CANNOT $p"
done
for p in /etc/shadow /root/.ssh /run/docker.sock /sys/kernel /proc/kcore; do
	[ -s $p ] && echo "SEES $p"
done
head -c 4 /dev/urandom >/dev/null && echo random
ls -a "$HOME"
getent hosts localhost; id -un
true`)
	spec.Command = append(spec.Command, ro, rw, other)
	spec.ReadOnly, spec.ReadWrite = []string{ro}, []string{rw}
	o := run{spec: spec}.run(t)
	o.want(t, 0, "wrote-dir", "ro-refused", "shown", "wrote-rw", "hidden", "random")
	for _, bad := range []string{"WROTE", "CANNOT", "SEES", "host\n"} {
		if strings.Contains(o.out, bad) {
			t.Errorf("%s in output:\n%s", bad, o.out)
		}
	}
	for _, f := range []string{filepath.Join(dir, "file"), filepath.Join(rw, "f")} {
		if b, err := os.ReadFile(f); string(b) != "new\n" {
			t.Errorf("%s holds %q, %v", f, b, err)
		}
	}
	if _, err := os.Lstat("/tmp/x"); err == nil {
		t.Error("the cage wrote to the host's /tmp")
	}
}

func TestSignalReachesTheCommand(t *testing.T) {
	p, wait := run{spec: probeSpec(t, project(t), "sleep")}.start(t)
	// The command prints "ready" after it has asked for the signal; before,
	// the signal ends it, and the code tells.
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	o := wait()
	if !(o.status.Code == 143 || strings.Contains(o.out, "got terminated")) {
		t.Errorf("%+v %q", o.status, o.out)
	}
}

func TestKillEndsEverything(t *testing.T) {
	p, wait := run{spec: shell(project(t), "sleep 1000 & sleep 1000")}.start(t)
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if o := wait(); o.status.Code != 137 {
		t.Errorf("%+v %v", o.status, o.err)
	}
	if err := p.Signal(syscall.SIGTERM); err == nil {
		t.Error("a signal reached a cage that is gone")
	}
}

func TestAttachFails(t *testing.T) {
	needNamespaces(t)
	dir := project(t)
	mark := errors.New("no gateway")
	_, err := Backend{}.Start(t.Context(), shell(dir, "touch ran"), func(l cage.Listeners) error {
		closeListeners(l)
		return mark
	})
	if !errors.Is(err, mark) {
		t.Errorf("got %v", err)
	}
	left := tree(t, dir)
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestCancelKillsTheCage(t *testing.T) {
	needNamespaces(t)
	ctx, cancel := context.WithCancel(t.Context())
	p, err := Backend{}.Start(ctx, shell(project(t), "sleep 1000"), func(l cage.Listeners) error { closeListeners(l); return nil })
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if st, _ := p.Wait(); st.Code != 137 {
		t.Errorf("%+v", st)
	}
}

func TestStartTwiceAndTogether(t *testing.T) {
	dir := project(t)
	for range 2 {
		run{spec: shell(dir, "echo again")}.run(t).want(t, 0, "again")
	}
	var wg sync.WaitGroup
	for i := range 20 {
		_, wait := run{spec: shell(dir, fmt.Sprintf("echo x > .envrc && echo PLANTED; echo cage-%d", i))}.start(t)
		wg.Go(func() {
			o := wait()
			if o.status.Code != 0 || !strings.Contains(o.out, fmt.Sprintf("cage-%d", i)) || strings.Contains(o.out, "PLANTED") {
				t.Errorf("cage %d: %+v %v %s", i, o.status, o.err, o.out)
			}
		})
	}
	wg.Wait()
	if left := tree(t, dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
