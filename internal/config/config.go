package config

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/BurntSushi/toml"

	"github.com/bangervm/banger/api"
)

// Config is the resolved configuration. Start from Load: the zero value lacks
// the defaults.
type Config struct {
	LogLevel         string // debug, info, warn, error
	DefaultImageName string
	Driver           string // auto, firecracker, qemu
	Accel            string // auto, kvm, tcg
	Network          string // user, none
	FirecrackerBin   string // empty: found in PATH, else the fetched one
	// FirecrackerURL and FirecrackerDigest are what is fetched when somebody asks
	// for it: both or none, which means the release pinned in banger.
	FirecrackerURL, FirecrackerDigest string
	QEMUBin                           string              // empty: found in PATH
	Templates                         bool                // machines may go on from a guest that was booted before
	DebianMirror                      string              // empty: the host's, else Debian's own
	Registries                        map[string]Registry // by host, as in references
	VMDefaults                        VMDefaults
	Limits                            Limits
	Catalogs                          []Catalog // in the order they are asked, behind banger's own
	SSHKeyPath                        string    // empty: one of ours; may begin with ~/

	sources map[string]string // by key; absent means default
}

// VMDefaults are the sizes of a machine whose request names none.
type VMDefaults struct {
	VCPU              int
	Memory            int64 // bytes, as all sizes
	DiskSize          int64
	SystemOverlaySize int64
}

// Limits are what each machine may take of the host at most from its next start
// on; zero is no limit.
type Limits struct {
	DiskBytes      int64 // a second, of each disk, reads and writes together
	DiskOperations int64 // a second, of each disk
	NetworkBytes   int64 // a second, in each direction
}

// Facts are what the defaults depend on.
type Facts struct {
	CPUs        int
	MemoryBytes int64
}

// Sources of a value.
const (
	FromDefault     = "default"
	FromFile        = "file"
	FromEnvironment = "environment"
)

// maxFile bounds what is read of config.toml.
const maxFile = 1 << 20

// Default is the configuration when nothing says otherwise: a quarter of the
// CPUs (1 to 4), an eighth of the memory (512 MiB to 8 GiB), disks of 8 GiB.
func Default(f Facts) Config {
	const mib, gib = 1 << 20, 1 << 30
	return Config{
		LogLevel:         "info",
		DefaultImageName: "debian-bookworm",
		Driver:           "auto",
		Accel:            "auto",
		Network:          "user",
		Templates:        true,
		VMDefaults: VMDefaults{
			VCPU:              min(max(f.CPUs/4, 1), 4),
			Memory:            min(max(f.MemoryBytes/8, 512*mib), 8*gib) / mib * mib,
			DiskSize:          8 * gib,
			SystemOverlaySize: 8 * gib,
		},
	}
}

// Load reads the configuration: defaults, then the file at path, which may be
// missing, then the environment.
func Load(path string, getenv func(string) string, f Facts) (Config, error) {
	c := Default(f)
	c.sources = map[string]string{}
	data, err := readFile(path)
	if err != nil {
		return Config{}, err
	}
	if err := c.applyFile(path, data); err != nil {
		return Config{}, err
	}
	for _, k := range keys {
		text := getenv(k.env())
		if text == "" {
			continue
		}
		if err := k.set(&c, text); err != nil {
			return Config{}, api.Errorf(api.KindInvalid, "cannot use the variable %s: %w", k.env(), err).WithHint("unset %s", k.env())
		}
		c.sources[k.name] = FromEnvironment
	}
	return c, nil
}

func readFile(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err == nil {
		defer func() { _ = f.Close() }()
		var data []byte
		if data, err = io.ReadAll(io.LimitReader(f, maxFile+1)); err == nil {
			if len(data) > maxFile {
				return "", api.Errorf(api.KindInvalid, "cannot read the configuration %s: it is larger than %s", path, FormatSize(maxFile))
			}
			return string(data), nil
		}
	}
	kind := api.KindInternal
	if errors.Is(err, os.ErrPermission) {
		kind = api.KindDenied
	}
	return "", api.Errorf(kind, "cannot read the configuration: %w", err).WithHint("ls -l %s", path)
}

// applyFile puts the values of a configuration file into c. path is for messages.
func (c *Config) applyFile(path, data string) error {
	var tree map[string]any
	meta, err := toml.Decode(data, &tree)
	if err != nil {
		var at toml.ParseError
		if errors.As(err, &at) {
			return api.Errorf(api.KindInvalid, "cannot read the configuration %s, line %d: %s", path, at.Position.Line, at.Message).
				WithHint("sed -n %dp %s", at.Position.Line, path)
		}
		return api.Errorf(api.KindInvalid, "cannot read the configuration %s: %w", path, err)
	}
	for _, name := range meta.Keys() {
		value, leaf := lookUp(tree, name)
		if !leaf && tables[name.String()] {
			continue
		}
		if name[0] == registriesKey {
			if err := setRegistry(c, name, value); err != nil {
				return wrongValue(path, lineOf(data, name), name, err)
			}
			c.sources[registriesKey] = FromFile
			continue
		}
		if name[0] == catalogsKey {
			if len(name) > 1 && c.sources[catalogsKey] == FromFile {
				continue // taken with the list
			}
			if err := setCatalogList(c, value); err != nil {
				return wrongValue(path, lineOf(data, name), toml.Key{catalogsKey}, err)
			}
			c.sources[catalogsKey] = FromFile
			continue
		}
		k, ok := keyNamed(name.String())
		if !ok {
			return unknownKey(path, lineOf(data, name), name.String())
		}
		text, err := textOf(value)
		if err == nil {
			err = k.set(c, text)
		}
		if err != nil {
			return wrongValue(path, lineOf(data, name), name, err)
		}
		c.sources[k.name] = FromFile
	}
	return nil
}

func wrongValue(path string, line int, name toml.Key, err error) error {
	return api.Errorf(api.KindInvalid, "cannot use the configuration %s, line %d: %s: %w", path, line, name, err).
		WithHint("sed -n %dp %s", line, path)
}

// textOf gives a value as one would write it in a flag.
func textOf(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool, int64, float64:
		return fmt.Sprint(v), nil
	}
	return "", errors.New("it must be a text, a number, true or false")
}

// lookUp finds a key in the decoded file and says whether it is a value rather
// than a table.
func lookUp(tree map[string]any, key toml.Key) (any, bool) {
	var v any = tree
	for _, part := range key {
		m, ok := v.(map[string]any)
		if !ok {
			return v, true // inside an array of tables
		}
		v = m[part]
	}
	_, table := v.(map[string]any)
	return v, !table
}

// Values lists all keys, in the order of the table, with where each came from.
func (c Config) Values() []api.ConfigValue {
	list := make([]api.ConfigValue, 0, len(keys))
	for _, k := range keys {
		source := c.sources[k.name]
		if source == "" {
			source = FromDefault
		}
		list = append(list, api.ConfigValue{Key: k.name, Value: k.get(c), Source: source})
	}
	return list
}
