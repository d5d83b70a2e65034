package tests

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
)

// A machine keeps the configured limits on its disks and, in both directions, its
// network from its next start on. Only lower bounds: the host may be slow.
func TestAMachineKeepsTheLimits(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	address := ""
	for _, a := range hostAddresses(t) {
		if ip := net.ParseIP(a); !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			address = a
		}
	}
	if address == "" {
		t.Skip("this host has no address that a guest may reach")
	}
	const size = 10 << 20
	l, err := net.Listen("tcp4", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = w.Write(make([]byte, size))
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	url := "http://" + l.Addr().String() + "/"

	if vm := h.create("web"); vm.Limits != nil {
		t.Errorf("nothing is configured, and the machine has %+v", vm.Limits)
	}
	h.writeConfig("[limits]\ndisk_bytes_per_second = \"8M\"\ndisk_operations_per_second = 500\nnetwork_bytes_per_second = \"2M\"\n")
	h.ok("daemon", "restart")
	if vm := h.show("web"); vm.Limits != nil {
		t.Errorf("it was started without limits, and shows %+v", vm.Limits)
	}
	h.ok("vm", "restart", "web")
	want := &api.VMLimits{DiskBytesPerSecond: 8 << 20, DiskOperationsPerSecond: 500, NetworkBytesPerSecond: 2 << 20}
	if diff := cmp.Diff(want, h.show("web").Limits); diff != "" {
		t.Error(diff)
	}
	const curl = "curl -sS --noproxy '*' -m 110 "
	for what, c := range map[string]struct{ line, says string }{
		"48 MiB of its disk":       {"dd if=/dev/vda of=/dev/null bs=1M count=48 iflag=direct status=none", ""},
		"3000 reads of its disk":   {"dd if=/dev/vda of=/dev/null bs=4K count=3000 iflag=direct status=none", ""},
		"10 MiB from the network":  {curl + "-o /dev/null -w '%{size_download}' " + url, fmt.Sprint(size)},
		"10 MiB sent into the net": {"head -c " + fmt.Sprint(size) + " /dev/zero | " + curl + "-T - " + url, fmt.Sprint(size)},
	} {
		began := time.Now()
		if said := h.sh("web", c.line); said != c.says {
			t.Errorf("%s: %q", what, said)
		}
		took := time.Since(began)
		t.Logf("%s took %s", what, took.Round(time.Millisecond))
		if took < 3*time.Second { // four at least
			t.Errorf("%s took %s", what, took)
		}
	}

	h.writeConfig("")
	h.ok("daemon", "restart")
	if diff := cmp.Diff(want, h.show("web").Limits); diff != "" {
		t.Errorf("it runs on as it was started: %s", diff)
	}
	h.ok("vm", "restart", "web")
	if vm := h.show("web"); vm.Limits != nil {
		t.Errorf("without limits again, it shows %+v", vm.Limits)
	}
}
