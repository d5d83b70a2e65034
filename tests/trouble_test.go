package tests

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
)

// begun is a command of banger's that runs on, and what it came to.
type begun struct {
	cmd *exec.Cmd
	out *bytes.Buffer
}

func (h *host) begin(args ...string) begun {
	h.t.Helper()
	b := begun{h.command(h.t.Context(), args...), &bytes.Buffer{}}
	b.cmd.Stdout, b.cmd.Stderr = b.out, b.out
	if err := b.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	return b
}

// fails waits for its end: with an error that has the words.
func (b begun) fails(h *host, words ...string) {
	h.t.Helper()
	code := exitCode(h.t, b.cmd.Wait())
	if code == 0 || code >= 128 {
		h.t.Errorf("code %d: %s", code, b.out)
	}
	for _, w := range words {
		if !strings.Contains(b.out.String(), w) {
			h.t.Errorf("it says nothing of %q: %s", w, b.out)
		}
	}
}

// over checks that a machine is stopped with an error in these words, and that
// nothing of its Firecracker is left.
func (h *host) over(ref string, words ...string) {
	h.t.Helper()
	h.eventually("it shows as stopped", 20*time.Second, func() bool { return h.show(ref).Status == api.StatusStopped })
	vm := h.show(ref)
	for _, w := range words {
		if vm.Error == nil || !strings.Contains(vm.Error.Message, w) {
			h.t.Errorf("its error is %+v, and nothing of %q", vm.Error, w)
		}
	}
	h.eventually("nothing of Firecracker is left", 10*time.Second, func() bool {
		folder, _ := filepath.Glob(filepath.Join(h.root, "run", "vm", vm.ID, "vmm"))
		return len(folder) == 0 && firecracker(vm.ID) == 0
	})
}

// A Firecracker that is stopped hangs on its API and on the guest link. Who waits
// for it hears so, the rest goes on, and a stop ends it. One that is killed is told
// as that, to who runs a command in it, too. Neither loses what was flushed.
func TestFirecrackerThatHangsAndOneThatIsKilled(t *testing.T) {
	t.Parallel()
	h := firecrackerHost(t)
	vm := h.create("web", "--driver", "firecracker", "--network", "none")
	h.sh("web", "echo kept > /root/a; sync")
	if err := syscall.Kill(firecracker(vm.ID), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waits := h.begin("vm", "exec", "web", "--", "true")
	if got := h.show("web"); got.Status != api.StatusRunning {
		t.Errorf("it shows as %s", got.Status)
	}
	r := h.banger("vm", "set", "web", "--disk-size", "9G")
	if r.code == 0 || !strings.Contains(r.stderr, "Firecracker does not answer") || !strings.Contains(r.stderr, "hint: ") || r.took > patience {
		t.Errorf("after %s: %v", r.took, r)
	}
	h.ok("vm", "list")
	h.ok("vm", "stop", "--timeout", "5s", "web")
	waits.fails(h, "hint: ")
	h.over("web", "did not shut down within 5s and was killed")

	h.ok("vm", "start", "web")
	if got := h.sh("web", "cat /root/a; df -BG --output=size /root | tail -1 | tr -dc 0-9"); got != "kept\n9" {
		t.Errorf("lost, or not grown: %q", got)
	}
	waits = h.begin("vm", "exec", "web", "--", "sleep", "600")
	h.eventually("the command runs", patience, func() bool {
		return strings.Contains(h.banger("vm", "exec", "web", "--", "ps", "ax").stdout, "sleep 600")
	})
	if err := syscall.Kill(firecracker(vm.ID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waits.fails(h, "crashed", "killed", "hint: banger vm show web")
	h.over("web", "crashed", "killed")
	h.ok("vm", "delete", "--yes", "web")
	h.empty()
}

// stormOfConnections is a guest's root, who opens connections to the host and to
// the agent and resets them, as fast as it can.
const stormOfConnections = `
import socket, struct
while True:
    for cid in (2, 1):
        s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.settimeout(0.2)
        try:
            s.connect((cid, 1024))
            s.send(b"GET /v1/health HT")
        except OSError:
            pass
        s.close()
`

// stormOfDrivers is a guest's root who takes the whole vsock device away and puts
// it back, as fast as it can.
const stormOfDrivers = `cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport; v=$(ls -d virtio*)
while :; do echo $v > unbind; echo $v > bind; done`

// A guest that resets its vsock in a storm costs itself what it breaks, at most its
// own Firecracker; banger answers, stops it, and starts it again.
func TestFirecrackerInAStormOfResets(t *testing.T) {
	t.Parallel()
	h := firecrackerHost(t)
	vm := h.create("web", "--driver", "firecracker", "--network", "none")
	r := h.bangerIn(strings.NewReader(stormOfConnections), "vm", "exec", "web", "--", "sh", "-c", "cat > /root/storm.py")
	if r.code != 0 {
		t.Fatal(r)
	}
	h.ok("vm", "exec", "-d", "web", "--", "python3", "/root/storm.py")
	for range 2 { // each takes its time: the guest has one processor
		if got := h.sh("web", "pgrep -f storm.py > /dev/null && echo storms"); got != "storms" {
			t.Errorf("%q", got)
		}
	}
	h.ok("vm", "stop", "web")
	h.over("web")
	if got := h.show("web"); got.Error != nil {
		t.Errorf("it did not stop in order: %+v", got.Error)
	}

	h.ok("vm", "start", "web")
	h.ok("vm", "exec", "-d", "web", "--", "sh", "-c", stormOfDrivers)
	began := time.Now()
	r = h.banger("vm", "exec", "web", "--", "true")
	if r.code != 0 && !strings.Contains(r.stderr, "hint: ") || time.Since(began) > patience {
		t.Errorf("after %s: %v", time.Since(began), r)
	}
	h.ok("vm", "list")
	h.ok("vm", "stop", "--timeout", "10s", "web")
	h.over("web")
	h.ok("vm", "start", "web")
	if got := h.sh("web", "test -s /root/storm.py && echo calm"); got != "calm" || firecracker(vm.ID) == 0 {
		t.Errorf("%q", got)
	}
}
