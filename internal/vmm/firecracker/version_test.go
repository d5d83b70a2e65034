package firecracker

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for version, c := range map[string]struct {
		kind api.Kind
		text string
	}{
		"1.12.0":     {"", "1.12.0"},
		"1.12.1":     {"", "1.12.1"},
		"1.14.0-dev": {"", "1.14.0"},
		"1.16.2":     {"", "1.16.2"},
		"1.17.0":     {"", "newer than 1.16"},
		"1.11.9":     {api.KindUnsupported, "older than 1.12"},
		"0.25.2":     {api.KindUnsupported, "older than 1.12"},
		"1.16.0":     {api.KindUnsupported, "lets no new connection reach the guest after a pause"},
		"1.16.1":     {api.KindUnsupported, "lets no new connection reach the guest after a pause"},
		"2.0.0":      {api.KindUnsupported, "generation"},
		"x":          {api.KindUnsupported, "not Firecracker's"},
		"":           {api.KindUnsupported, "not Firecracker's"},
	} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := sound()
			s.Version = version
			d := s.driver(t)
			for range 2 { // the second time from memory
				v, err := d.Check(t.Context())
				if api.KindOf(err) != c.kind || !strings.Contains(v.Text+v.Note+fmt.Sprint(err), c.text) {
					t.Errorf("got %+v, %v", v, err)
				}
				if err != nil && api.AsError(err).Hint == "" {
					t.Error("no hint")
				}
			}
		})
	}
}

// Where each Firecracker may lie, in that order.
func TestFind(t *testing.T) {
	program := sound().install(t)
	t.Setenv("PATH", "/nonexistent")
	d := driverOf(t, "")
	if _, err := d.Check(t.Context()); api.KindOf(err) != api.KindUnavailable || api.AsError(err).Hint != fetchHint {
		t.Errorf("none: %v", err)
	}
	d.opts.Fetched = program
	if v, err := d.Check(t.Context()); err != nil || v.Program != program || d.Program() != program {
		t.Errorf("fetched: %+v, %v", v, err)
	}
	d.opts.Binary = "/nonexistent/firecracker"
	if _, err := d.Check(t.Context()); api.KindOf(err) != api.KindUnavailable || d.Program() != "" {
		t.Errorf("the configured one is missing: %v", err)
	}
}

// A field that a version does not know it refuses, so each is sent to those
// only that know it.
func TestFieldsByVersion(t *testing.T) {
	t.Parallel()
	spec := testSpec(t)
	spec.Network = &vmm.NIC{MAC: "52:54:00:00:00:01", MTU: 9000}
	spec.Disks = []vmm.Disk{{Path: "/a", Serial: "root", ReadOnly: true}, {Path: "/b", Serial: "work", Fleeting: true}}
	at, _ := placesOf(spec, "/dev/kvm", true)
	for text, want := range map[string]map[string]bool{
		"1.12.1":     {`"mtu"`: false, "free_page": false},
		"1.13.2":     {`"mtu"`: false, "free_page": false},
		"1.14.0-dev": {`"mtu"`: false, "free_page": false},
		"1.14.0":     {`"mtu"`: false, `"free_page_reporting":true`: true, "hinting": false},
		"1.14.1-dev": {`"mtu"`: false, `"free_page_reporting":true`: true, "hinting": false},
		"1.16.0-dev": {`"mtu"`: false, `"free_page_reporting":true`: true, "hinting": false},
		"1.16.2":     {`"mtu":9000`: true, `"free_page_reporting":true`: true, "hinting": false},
		"1.20.0":     {`"mtu":9000`: true, `"free_page_reporting":true`: true, "hinting": false},
	} {
		v, ok := parseVersion(text)
		if !ok {
			t.Fatal(text)
		}
		var all, order []string
		for _, s := range setup(spec, v, at) {
			b, err := json.Marshal(s.body)
			if err != nil {
				t.Fatal(err)
			}
			all, order = append(all, string(b)), append(order, s.path)
		}
		for field, there := range want {
			if strings.Contains(strings.Join(all, ""), field) != there {
				t.Errorf("%s: %s", text, field)
			}
		}
		if got := strings.Join(order, " "); got != "/metrics /machine-config /boot-source /drives/disk0 /drives/disk1 /network-interfaces/eth0 /vsock /entropy /balloon /actions" {
			t.Errorf("%s: %s", text, got)
		}
		if !strings.Contains(all[3], `"path_on_host":"/disk0","is_root_device":false,"is_read_only":true`) || !strings.Contains(all[4], `"is_read_only":false`) {
			t.Errorf("%s: disks %s %s", text, all[3], all[4])
		}
		if !strings.Contains(all[3], `"cache_type":"Writeback"`) || !strings.Contains(all[4], `"cache_type":"Unsafe"`) {
			t.Errorf("%s: caches of disks %s %s", text, all[3], all[4])
		}
	}
}

// Without limits nothing is said of them; with, they are said of each disk.
func TestDiskLimits(t *testing.T) {
	t.Parallel()
	spec := testSpec(t)
	spec.Disks = []vmm.Disk{{Path: "/a", Serial: "root", ReadOnly: true}, {Path: "/b", Serial: "work"}}
	for want, limits := range map[string]vmm.Limits{
		"": {},
		`{"bandwidth":{"size":8388608,"refill_time":1000}}`:                                       {DiskBytesPerSecond: 8 << 20},
		`{"ops":{"size":500,"refill_time":1000}}`:                                                 {DiskOperationsPerSecond: 500},
		`{"bandwidth":{"size":8388608,"refill_time":1000},"ops":{"size":500,"refill_time":1000}}`: {DiskBytesPerSecond: 8 << 20, DiskOperationsPerSecond: 500},
	} {
		spec.Limits = limits
		at, _ := placesOf(spec, "/dev/kvm", true)
		disks := 0
		for _, s := range setup(spec, version{1, 12, 1, false}, at) {
			if !strings.HasPrefix(s.path, "/drives/") {
				continue
			}
			disks++
			b, err := json.Marshal(s.body)
			if err != nil {
				t.Fatal(err)
			}
			_, got, _ := strings.Cut(strings.TrimSuffix(string(b), "}"), `,"rate_limiter":`)
			if got != want {
				t.Errorf("%+v: %s", limits, b)
			}
		}
		if disks != 2 {
			t.Errorf("%d disks", disks)
		}
	}
	spec.Limits = vmm.Limits{DiskOperationsPerSecond: -1}
	if err := validate(spec); api.KindOf(err) != api.KindInvalid {
		t.Errorf("negative: %v", err)
	}
}

func FuzzVersion(f *testing.F) {
	f.Add("1.12.1")
	f.Add("v1.14.0-dev")
	f.Fuzz(func(t *testing.T, s string) {
		if v, ok := parseVersion(s); ok && (v.major > 9999 || v.minor > 9999 || v.patch > 9999) {
			t.Errorf("%q gives %v", s, v)
		}
	})
}
