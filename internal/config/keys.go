package config

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/bangervm/banger/api"
)

// key is one setting: a line of config.toml and a variable.
type key struct {
	name string // dotted, as in the file
	set  func(c *Config, text string) error
	get  func(c Config) any
}

// keys is every key there is.
var keys = []key{
	{"log_level", oneOf(func(c *Config) *string { return &c.LogLevel }, "debug", "info", "warn", "error"), func(c Config) any { return c.LogLevel }},
	{"default_image_name", text(func(c *Config) *string { return &c.DefaultImageName }), func(c Config) any { return c.DefaultImageName }},
	{"driver", oneOf(func(c *Config) *string { return &c.Driver }, "auto", "firecracker", "qemu"), func(c Config) any { return c.Driver }},
	{"accel", oneOf(func(c *Config) *string { return &c.Accel }, "auto", "kvm", "tcg"), func(c Config) any { return c.Accel }},
	{"network", oneOf(func(c *Config) *string { return &c.Network }, "user", "none"), func(c Config) any { return c.Network }},
	{"firecracker_bin", text(func(c *Config) *string { return &c.FirecrackerBin }), func(c Config) any { return c.FirecrackerBin }},
	{"firecracker_url", text(func(c *Config) *string { return &c.FirecrackerURL }), func(c Config) any { return c.FirecrackerURL }},
	{"firecracker_digest", text(func(c *Config) *string { return &c.FirecrackerDigest }), func(c Config) any { return c.FirecrackerDigest }},
	{"qemu_bin", text(func(c *Config) *string { return &c.QEMUBin }), func(c Config) any { return c.QEMUBin }},
	{"templates", yesNo(func(c *Config) *bool { return &c.Templates }), func(c Config) any { return c.Templates }},
	{"debian_mirror", mirror, func(c Config) any { return c.DebianMirror }},
	{registriesKey, setRegistries, func(c Config) any { return registriesOf(c) }},
	{catalogsKey, setCatalogs, func(c Config) any { return append([]Catalog{}, c.Catalogs...) }},
	{"ssh_key_path", keyPath, func(c Config) any { return c.SSHKeyPath }},
	{"vm_defaults.vcpu", vcpu, func(c Config) any { return c.VMDefaults.VCPU }},
	{"vm_defaults.memory", size(func(c *Config) *int64 { return &c.VMDefaults.Memory }, ParseMemory), func(c Config) any { return c.VMDefaults.Memory }},
	{"vm_defaults.disk_size", size(func(c *Config) *int64 { return &c.VMDefaults.DiskSize }, ParseDisk), func(c Config) any { return c.VMDefaults.DiskSize }},
	{"vm_defaults.system_overlay_size", size(func(c *Config) *int64 { return &c.VMDefaults.SystemOverlaySize }, ParseDisk), func(c Config) any { return c.VMDefaults.SystemOverlaySize }},
	{"limits.disk_bytes_per_second", rate(func(c *Config) *int64 { return &c.Limits.DiskBytes }, minDiskRate), func(c Config) any { return orNothing(c.Limits.DiskBytes) }},
	{"limits.disk_operations_per_second", operations, func(c Config) any { return orNothing(c.Limits.DiskOperations) }},
	{"limits.network_bytes_per_second", rate(func(c *Config) *int64 { return &c.Limits.NetworkBytes }, minNetworkRate), func(c Config) any { return orNothing(c.Limits.NetworkBytes) }},
}

// tables are the keys that hold others.
var tables = map[string]bool{"vm_defaults": true, "limits": true}

// later are keys of the contract that this version does nothing with. To accept
// them would be to pretend.
var later = []string{
	"jailer_bin", "bridge_name", "cidr", "tap_pool_size",
	"dns_listen", "default_dns", "stats_poll_interval", "auto_stop_stale_after", "file_sync",
}

// env is the variable that overrides the key: BANGER_VM_DEFAULTS_MEMORY.
func (k key) env() string {
	return "BANGER_" + strings.ToUpper(strings.ReplaceAll(k.name, ".", "_"))
}

func keyNamed(name string) (key, bool) {
	i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
	if i < 0 {
		return key{}, false
	}
	return keys[i], true
}

func unknownKey(path string, line int, name string) error {
	top, _, _ := strings.Cut(name, ".")
	if slices.Contains(later, top) {
		return api.Errorf(api.KindUnsupported, "cannot use the configuration %s, line %d: this version has no %q yet", path, line, clip(name)).
			WithHint("sed -n %dp %s", line, path)
	}
	e := api.Errorf(api.KindInvalid, "cannot use the configuration %s, line %d: unknown key %q", path, line, clip(name)).
		WithHint("banger config show")
	for _, k := range keys {
		if last := k.name[strings.LastIndexByte(k.name, '.')+1:]; near(name, k.name) || near(name, last) {
			e.Candidates = append(e.Candidates, k.name)
		}
	}
	if len(e.Candidates) > 0 {
		e.Message += "; did you mean " + strings.Join(e.Candidates, " or ") + "?"
	}
	return e
}

// near says whether two names differ by case, by - for _, or by a letter or two.
func near(a, b string) bool {
	a = strings.ReplaceAll(strings.ToLower(a), "-", "_")
	if len(a) > 64 {
		return false
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)] <= min(2, len(b)/3)
}

func text(field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, s string) error {
		if strings.ContainsAny(s, "\x00\n") {
			return fmt.Errorf("%q holds a line break or a zero byte", clip(s))
		}
		*field(c) = s
		return nil
	}
}

func oneOf(field func(*Config) *string, allowed ...string) func(*Config, string) error {
	return func(c *Config, s string) error {
		if !slices.Contains(allowed, s) {
			return fmt.Errorf("%q is not one of %s", clip(s), strings.Join(allowed, ", "))
		}
		*field(c) = s
		return nil
	}
}

func yesNo(field func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, s string) error {
		switch s {
		case "true":
			*field(c) = true
		case "false":
			*field(c) = false
		default:
			return fmt.Errorf("%q is neither true nor false", clip(s))
		}
		return nil
	}
}

func size(field func(*Config) *int64, parse func(string) (int64, error)) func(*Config, string) error {
	return func(c *Config, s string) error {
		n, err := parse(s)
		if err != nil {
			return err
		}
		*field(c) = n
		return nil
	}
}

// maxVCPU is what the machine type takes; the host's limit is checked when a
// machine is made.
const maxVCPU = 255

func vcpu(c *Config, s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxVCPU {
		return fmt.Errorf("%q is not a number from 1 to %d", clip(s), maxVCPU)
	}
	c.VMDefaults.VCPU = n
	return nil
}

func keyPath(c *Config, s string) error {
	if s != "" && !strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "~/") || strings.ContainsAny(s, "\x00\n") {
		return fmt.Errorf("%q is not an absolute path, nor one that begins with ~/", clip(s))
	}
	c.SSHKeyPath = s
	return nil
}

func mirror(c *Config, s string) error {
	u, err := url.Parse(s)
	if s != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.ContainsAny(s, " \t\n\x00")) {
		return fmt.Errorf("%q is not a URL like http://deb.debian.org/debian", clip(s))
	}
	c.DebianMirror = s
	return nil
}
