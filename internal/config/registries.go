package config

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// Registry is what the configuration says about one registry, under the name it
// has in references: [registries."127.0.0.1:5000"].
type Registry struct {
	PlainHTTP bool     `toml:"plain_http" json:"plain_http"` // it has no TLS; those on loopback need not say so
	CA        string   `toml:"ca" json:"ca"`                 // a file of certificates trusted beside the host's
	Mirrors   []string `toml:"mirrors" json:"mirrors"`       // asked first, in order: HOST[:PORT][/PREFIX]
}

// registriesKey is the key whose tables are named by the user.
const registriesKey = "registries"

// registryKeys are those of one registry.
var registryKeys = []string{"plain_http", "ca", "mirrors"}

// setRegistries takes the value of BANGER_REGISTRIES, a table in one line as
// TOML has it: {"127.0.0.1:5000" = {plain_http = true}}.
func setRegistries(c *Config, text string) error {
	var file struct {
		Registries map[string]any `toml:"registries"`
	}
	if _, err := toml.Decode("registries = "+text, &file); err != nil || strings.Contains(text, "\n") {
		return fmt.Errorf("%q is no table like {\"127.0.0.1:5000\" = {plain_http = true}}", clip(text))
	}
	found := map[string]Registry{}
	for host, value := range file.Registries {
		table, ok := value.(map[string]any)
		if !ok {
			return fmt.Errorf("%q must be a table like {plain_http = true}", clip(host))
		}
		for _, name := range slices.Sorted(maps.Keys(table)) {
			if err := setRegistryKey(found, host, name, table[name]); err != nil {
				return err
			}
		}
	}
	c.Registries = found
	return nil
}

// setRegistry takes one key of the file below registries; a table is no value.
func setRegistry(c *Config, key toml.Key, value any) error {
	if len(key) < 3 {
		if _, table := value.(map[string]any); !table {
			return errors.New("it must be a table, like [registries.\"127.0.0.1:5000\"]")
		}
		if len(key) == 2 {
			return checkRegistryHost(key[1])
		}
		return nil
	}
	if len(key) > 3 {
		return fmt.Errorf("unknown key %q; a host with dots or a port is written in quotes: [registries.\"127.0.0.1:5000\"]", clip(key.String()))
	}
	if c.Registries == nil {
		c.Registries = map[string]Registry{}
	}
	return setRegistryKey(c.Registries, key[1], key[2], value)
}

func setRegistryKey(into map[string]Registry, host, name string, value any) error {
	if err := checkRegistryHost(host); err != nil {
		return err
	}
	r, ok := into[host], true
	switch name {
	case "plain_http":
		if r.PlainHTTP, ok = value.(bool); !ok {
			return errors.New("plain_http must be true or false")
		}
	case "ca":
		if r.CA, ok = value.(string); !ok || !filepath.IsAbs(r.CA) || strings.ContainsRune(r.CA, 0) {
			return errors.New("ca must be the absolute path of a file with certificates")
		}
	case "mirrors":
		list, ok := value.([]any)
		if !ok {
			return errors.New(`mirrors must be a list like ["mirror.example:5000"]`)
		}
		r.Mirrors = nil
		for _, m := range list {
			mirror, ok := m.(string)
			at, _, _ := strings.Cut(mirror, "/")
			if !ok || checkRegistryHost(at) != nil {
				return fmt.Errorf("%q is no mirror like mirror.example:5000 or mirror.example/prefix, with no https:// before it", clip(fmt.Sprint(m)))
			}
			r.Mirrors = append(r.Mirrors, mirror)
		}
	default:
		return fmt.Errorf("unknown key %q; a host with dots or a port is written in quotes, and has %s", clip(name), strings.Join(registryKeys, ", "))
	}
	into[host] = r
	return nil
}

func checkRegistryHost(host string) error {
	u, err := url.Parse("https://" + host)
	if err != nil || host == "" || u.Host != host || u.Hostname() == "" || strings.HasSuffix(host, ":") || strings.ContainsAny(host, " \t\n\x00") {
		return fmt.Errorf("%q is no host of a registry, like registry.example:5000", clip(host))
	}
	return nil
}

// registriesOf gives JSON empty tables and lists for nothing.
func registriesOf(c Config) map[string]Registry {
	shown := map[string]Registry{}
	for host, r := range c.Registries {
		if r.Mirrors == nil {
			r.Mirrors = []string{}
		}
		shown[host] = r
	}
	return shown
}
