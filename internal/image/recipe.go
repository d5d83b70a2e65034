package image

import (
	"context"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/catalog"
)

// Recipe is an image as a set of Debian packages.
type Recipe struct {
	Suite    string
	Variant  string
	Packages []string
	Config   api.ImageConfig
	// TreeBytes is about what the unpacked tree with its downloads takes while
	// it is built, ImageBytes what the file system takes.
	TreeBytes, ImageBytes int64
	// Files are written into the image, over what packages bring.
	Files []File
}

// File is a small text file of an image, owned by root, mode 0644.
type File struct {
	Path string // relative, e.g. etc/hosts
	Text string
}

// recipeOf is the recipe of a catalog's set of packages.
func recipeOf(d catalog.Debian) Recipe {
	r := Recipe{
		Suite: d.Suite, Variant: d.Variant, Packages: d.Packages, Config: api.ImageConfig{Env: d.Env},
		TreeBytes: d.TreeBytes, ImageBytes: d.ImageBytes, Files: standardFiles(),
	}
	if r.Variant == "" {
		r.Variant = "minbase"
	}
	return r
}

// standardFiles are what every image built from packages has of ours.
func standardFiles() []File {
	return []File{
		{"etc/default/locale", "LANG=C.UTF-8\n"},
		{"etc/hostname", "banger\n"},
		{"etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"},
		{"etc/resolv.conf", "# written at each start\n"},
		{"etc/machine-id", ""},
	}
}

// leftovers are what building leaves in the tree and a guest must not have: the
// mirrors, proxies and settings of the host that built it.
var leftovers = [...]string{
	"etc/apt/sources.list",
	"etc/apt/apt.conf.d/99mmdebstrap",
	"etc/dpkg/dpkg.cfg.d/99mmdebstrap",
	"etc/apt/apt.conf.d/00mmdebstrap",
	"var/lib/dbus/machine-id",
	"var/cache/apt/pkgcache.bin",
	"var/cache/apt/srcpkgcache.bin",
}

// DefaultRecipe is what DefaultName is built from; the benchmark gives it to
// mmdebstrap alone.
func DefaultRecipe() Recipe {
	for _, i := range catalog.Own().List(context.Background(), catalog.Images, false) {
		for _, s := range i.Sources {
			if i.Name == DefaultName && s.Debian != nil {
				return recipeOf(*s.Debian)
			}
		}
	}
	panic("banger's own catalog has no " + DefaultName) // a test asks for it
}
