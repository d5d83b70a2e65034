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

	"github.com/bangervm/banger/internal/signature"
)

// Catalog is a list of images and kernels beside banger's own: [[catalogs]].
type Catalog struct {
	Name      string `toml:"name" json:"name"`
	Location  string `toml:"location" json:"location"`     // an absolute path, or a URL
	PublicKey string `toml:"public_key" json:"public_key"` // of minisign; empty demands no signature
	PlainHTTP bool   `toml:"plain_http" json:"plain_http"` // its host has no TLS; loopback need not say so
}

// catalogsKey is the key that is a list of tables.
const catalogsKey = "catalogs"

// maxCatalogs bounds the list.
const maxCatalogs = 32

// setCatalogs takes the value of BANGER_CATALOGS, a list in one line as TOML has
// it: [{name = "ours", location = "https://…"}].
func setCatalogs(c *Config, text string) error {
	var file map[string]any
	if _, err := toml.Decode(catalogsKey+" = "+text, &file); err != nil || strings.Contains(text, "\n") {
		return fmt.Errorf("%q is no list like [{name = \"ours\", location = \"https://…\"}]", clip(text))
	}
	return setCatalogList(c, file[catalogsKey])
}

// setCatalogList takes the list as the file has it.
func setCatalogList(c *Config, value any) error {
	var tables []map[string]any
	switch list := value.(type) {
	case []map[string]any:
		tables = list
	case []any:
		for _, v := range list {
			t, ok := v.(map[string]any)
			if !ok {
				return errors.New("it must be a list of tables: [[catalogs]]")
			}
			tables = append(tables, t)
		}
	default:
		return errors.New("it must be a list of tables: [[catalogs]]")
	}
	if len(tables) > maxCatalogs {
		return fmt.Errorf("it has more than %d", maxCatalogs)
	}
	found := []Catalog{}
	for _, t := range tables {
		cat, err := catalogOf(t)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(found, func(o Catalog) bool { return o.Name == cat.Name }) {
			return fmt.Errorf("two have the name %q", cat.Name)
		}
		found = append(found, cat)
	}
	c.Catalogs = found
	return nil
}

func catalogOf(table map[string]any) (Catalog, error) {
	var cat Catalog
	for _, name := range slices.Sorted(maps.Keys(table)) {
		value, ok := table[name], true
		switch name {
		case "name":
			cat.Name, ok = value.(string)
		case "location":
			cat.Location, ok = value.(string)
		case "public_key":
			cat.PublicKey, ok = value.(string)
		case "plain_http":
			if cat.PlainHTTP, ok = value.(bool); !ok {
				return cat, errors.New("plain_http must be true or false")
			}
		default:
			return cat, fmt.Errorf("unknown key %q; a catalog has name, location, public_key, plain_http", clip(name))
		}
		if !ok {
			return cat, fmt.Errorf("%s must be a text", name)
		}
	}
	if !isName(cat.Name) || cat.Name == "banger" {
		return cat, fmt.Errorf("the name %q is not 1 to 63 of a-z, 0-9 and -, with no hyphen at either end, and not banger", clip(cat.Name))
	}
	if err := checkLocation(cat.Location, cat.PlainHTTP); err != nil {
		return cat, fmt.Errorf("%s: %w", cat.Name, err)
	}
	if cat.PublicKey != "" {
		if _, err := signature.ParseKey(cat.PublicKey); err != nil {
			return cat, fmt.Errorf("%s: public_key: %w", cat.Name, err)
		}
	}
	return cat, nil
}

func checkLocation(at string, plain bool) error {
	if filepath.IsAbs(at) && !strings.ContainsRune(at, 0) {
		return nil
	}
	u, err := url.Parse(at)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.ContainsAny(at, " \t\n\x00") {
		return fmt.Errorf("location: %q is neither an absolute path nor an address like https://host/catalog.json", clip(at))
	}
	if h := u.Hostname(); u.Scheme == "http" && !plain && h != "localhost" && h != "::1" && !strings.HasPrefix(h, "127.") {
		return fmt.Errorf("location: %q is plain http, which wants plain_http = true", clip(at))
	}
	return nil
}

func isName(s string) bool {
	ok := len(s) >= 1 && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-'
	for _, r := range s {
		ok = ok && (r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-')
	}
	return ok
}
