package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bangervm/banger/api"
	"github.com/google/go-cmp/cmp"
)

var host = Facts{CPUs: 8, MemoryBytes: 16 * gib}

func none(string) string { return "" }

func load(t *testing.T, file string, env map[string]string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path, func(k string) string { return env[k] }, host)
}

func TestDefaultsDependOnTheHost(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		f      Facts
		vcpu   int
		memory int64
	}{
		{Facts{}, 1, 512 * mib},
		{Facts{1, 1 * gib}, 1, 512 * mib},
		{Facts{2, 4 * gib}, 1, 512 * mib},
		{Facts{4, 8 * gib}, 1, 1 * gib},
		{Facts{8, 16*gib - 12345678}, 2, 2*gib - 2*mib},
		{Facts{16, 64 * gib}, 4, 8 * gib},
		{Facts{128, 1024 * gib}, 4, 8 * gib},
	} {
		d := Default(tc.f).VMDefaults
		if d.VCPU != tc.vcpu || d.Memory != tc.memory || d.DiskSize != 8*gib || d.SystemOverlaySize != 8*gib {
			t.Errorf("%+v: %+v", tc.f, d)
		}
	}
}

func TestEachSourceCoversTheOneBefore(t *testing.T) {
	t.Parallel()
	c, err := load(t, `
log_level = "debug"
driver = "qemu"
templates = false

[vm_defaults]
vcpu = 3
memory = "2G"       # the environment knows better
disk_size = "20G"
`, map[string]string{"BANGER_VM_DEFAULTS_MEMORY": "4G", "BANGER_ACCEL": "tcg", "BANGER_ROOT": "/x", "BANGER_OTHER": "y"})
	if err != nil {
		t.Fatal(err)
	}
	want := []api.ConfigValue{
		{Key: "log_level", Value: "debug", Source: FromFile},
		{Key: "default_image_name", Value: "debian-bookworm", Source: FromDefault},
		{Key: "driver", Value: "qemu", Source: FromFile},
		{Key: "accel", Value: "tcg", Source: FromEnvironment},
		{Key: "network", Value: "user", Source: FromDefault},
		{Key: "firecracker_bin", Value: "", Source: FromDefault},
		{Key: "firecracker_url", Value: "", Source: FromDefault},
		{Key: "firecracker_digest", Value: "", Source: FromDefault},
		{Key: "qemu_bin", Value: "", Source: FromDefault},
		{Key: "templates", Value: false, Source: FromFile},
		{Key: "debian_mirror", Value: "", Source: FromDefault},
		{Key: "registries", Value: map[string]Registry{}, Source: FromDefault},
		{Key: "catalogs", Value: []Catalog{}, Source: FromDefault},
		{Key: "ssh_key_path", Value: "", Source: FromDefault},
		{Key: "vm_defaults.vcpu", Value: 3, Source: FromFile},
		{Key: "vm_defaults.memory", Value: int64(4 * gib), Source: FromEnvironment},
		{Key: "vm_defaults.disk_size", Value: int64(20 * gib), Source: FromFile},
		{Key: "vm_defaults.system_overlay_size", Value: int64(8 * gib), Source: FromDefault},
		{Key: "limits.disk_bytes_per_second", Value: nil, Source: FromDefault},
		{Key: "limits.disk_operations_per_second", Value: nil, Source: FromDefault},
		{Key: "limits.network_bytes_per_second", Value: nil, Source: FromDefault},
	}
	if diff := cmp.Diff(want, c.Values()); diff != "" {
		t.Error(diff)
	}
	if c.VMDefaults.VCPU != 3 || c.LogLevel != "debug" || c.Accel != "tcg" {
		t.Errorf("%+v", c)
	}
}

func TestWaysToWriteIt(t *testing.T) {
	t.Parallel()
	for name, file := range map[string]string{
		"a table":        "[vm_defaults]\nmemory = \"1G\"\n",
		"a dotted key":   "vm_defaults.memory = \"1G\"\n",
		"an inline":      "vm_defaults = { memory = \"1G\" }\n",
		"a bare number":  "[vm_defaults]\nmemory = 1024\n",
		"windows' lines": "[vm_defaults]\r\nmemory = \"1G\"\r\n",
		"quoted keys":    "\"vm_defaults\".'memory' = \"1G\"",
	} {
		c, err := load(t, file, nil)
		if err != nil || c.VMDefaults.Memory != gib {
			t.Errorf("%s: %d, %v", name, c.VMDefaults.Memory, err)
		}
	}
}

func TestWhatIsWrongIsNamedWithItsLine(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		file string
		kind api.Kind
		says []string
	}{
		"unknown":                  {"# hi\n\nlog_levle = \"info\"\n", api.KindInvalid, []string{"line 3", `"log_levle"`, "log_level?"}},
		"unknown, nothing near":    {"quux = 1\n", api.KindInvalid, []string{"line 1", `"quux"`}},
		"unknown in a table":       {"[vm_defaults]\n\nmemroy = \"1G\"\n", api.KindInvalid, []string{"line 3", "vm_defaults.memory?"}},
		"a key of a table, bare":   {"memory = \"1G\"\n", api.KindInvalid, []string{"line 1", "vm_defaults.memory?"}},
		"unknown table":            {"log_level = \"info\"\n[vm]\nmemory = \"1G\"\n", api.KindInvalid, []string{"line 2", `"vm"`}},
		"after a long text":        {"qemu_bin = \"\"\"\na\nb\"\"\"\nx = 1", api.KindInvalid, []string{"line 1"}},
		"unknown, many lines":      {"debian_mirror = \"\"\nfoo = [\n 1,\n 2,\n]\n", api.KindInvalid, []string{"line 2", `"foo"`}},
		"array of tables":          {"[[vm_defaults]]\nmemory = \"1G\"\n", api.KindInvalid, []string{"line 1"}},
		"upper case":               {"Log_Level = \"info\"\n", api.KindInvalid, []string{"line 1", "log_level?"}},
		"of a later version":       {"driver = \"qemu\"\nbridge_name = \"br0\"\n", api.KindUnsupported, []string{"line 2", "bridge_name"}},
		"table of a later version": {"[[file_sync]]\nhost = \"~/.gitconfig\"\n", api.KindUnsupported, []string{"line 1", "file_sync"}},
		"bad value":                {"\naccel = \"xen\"\n", api.KindInvalid, []string{"line 2", "accel", "auto, kvm, tcg"}},
		"bad size":                 {"[vm_defaults]\nvcpu = 1\ndisk_size = \"8\"\n", api.KindInvalid, []string{"line 3", "did you mean 8G"}},
		"a number as disk":         {"[vm_defaults]\ndisk_size = 8\n", api.KindInvalid, []string{"line 2", "no unit"}},
		"little memory":            {"[vm_defaults]\nmemory = 4\n", api.KindInvalid, []string{"line 2", "did you mean 4G"}},
		"no vcpus":                 {"[vm_defaults]\nvcpu = 0\n", api.KindInvalid, []string{"line 2", "1 to 255"}},
		"half a vcpu":              {"[vm_defaults]\nvcpu = 1.5\n", api.KindInvalid, []string{"line 2", "1 to 255"}},
		"neither yes nor no":       {"templates = \"often\"\n", api.KindInvalid, []string{"line 1", "templates", "neither true nor false"}},
		"wrong type":               {"log_level = [1]\n", api.KindInvalid, []string{"line 1", "log_level", "a text, a number, true or false"}},
		"table as value":           {"[log_level]\nx = 1\n", api.KindInvalid, []string{"line 1"}},
		"value as table":           {"vm_defaults = 5\n", api.KindInvalid, []string{"line 1", "vm_defaults"}},
		"bad mirror":               {"debian_mirror = \"deb.debian.org\"\n", api.KindInvalid, []string{"line 1", "URL"}},
		"no TOML":                  {"log_level = \"info\"\nthis is not toml\n", api.KindInvalid, []string{"line 2"}},
		"twice":                    {"driver = \"qemu\"\ndriver = \"auto\"\n", api.KindInvalid, []string{"line 2", "driver"}},
		"unfinished":               {"driver = \"qemu", api.KindInvalid, []string{"line 1"}},
		"binary":                   {"\x00\x01\x02", api.KindInvalid, []string{"line 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, tc.file, nil)
			if api.KindOf(err) != tc.kind {
				t.Fatalf("%s: %v", api.KindOf(err), err)
			}
			for _, s := range append(tc.says, "config.toml") {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not say %q", err, s)
				}
			}
			if e := api.AsError(err); e.Hint == "" || strings.Contains(e.Message, "\n") {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestABadVariableIsNamed(t *testing.T) {
	t.Parallel()
	_, err := load(t, "", map[string]string{"BANGER_VM_DEFAULTS_VCPU": "many"})
	if api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), "BANGER_VM_DEFAULTS_VCPU") {
		t.Error(err)
	}
}

func TestTheFileItself(t *testing.T) {
	t.Parallel()
	if c, err := Load(filepath.Join(t.TempDir(), "no", "config.toml"), none, host); err != nil || c.Driver != "auto" {
		t.Errorf("a missing file: %+v, %v", c, err)
	}
	if _, err := Load(t.TempDir(), none, host); err == nil {
		t.Error("a folder was read")
	}
	if _, err := load(t, strings.Repeat("#", maxFile+1), nil); api.KindOf(err) != api.KindInvalid {
		t.Error(err)
	}
	if os.Geteuid() != 0 {
		path := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(path, nil, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path, none, host); api.KindOf(err) != api.KindDenied {
			t.Error(err)
		}
	}
}

func FuzzFile(f *testing.F) {
	for _, s := range []string{"", "log_level = \"info\"", "[vm_defaults]\nmemory=\"1G\"\nx=1", "[[file_sync]]\nhost=\"a\"", "a.b.c = 1", "x = [1,\n2]", "vm_defaults = {vcpu=1}", "[a]\n[a.b]\n[[c]]\nd=1979-05-27"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 4096 {
			return // looking for a line tries each
		}
		c := Default(host)
		c.sources = map[string]string{}
		err := c.applyFile("config.toml", s)
		if err == nil {
			return
		}
		if k := api.KindOf(err); k != api.KindInvalid && k != api.KindUnsupported {
			t.Errorf("%q: kind %s: %v", s, k, err)
		}
		if !strings.Contains(err.Error(), "line ") {
			t.Errorf("%q: no line: %v", s, err)
		}
	})
}
