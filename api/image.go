package api

import "time"

// Image is one root file system that VMs can be made from.
type Image struct {
	ID    string   `json:"id"`    // of the content: the beginning of its digest
	Name  string   `json:"name"`  // empty: an image that lost its names, but not its VMs
	Names []string `json:"names"` // all names of the same content, oldest first
	// Digest names the content: for an image that is built, the root file system;
	// for one that is flattened, configuration, layers and the way it is done.
	Digest string `json:"digest"`
	Kind   string `json:"kind"` // oci, debian, bundle, registered, promoted
	// Reference is what was pulled under the name, and ReferenceDigest what the
	// registry said it was: the digest of the manifest.
	Reference       string      `json:"reference"`
	ReferenceDigest string      `json:"reference_digest,omitempty"`
	Kernel          string      `json:"kernel"`
	SizeBytes       int64       `json:"size_bytes"` // as stored on disk
	CreatedAt       time.Time   `json:"created_at"`
	UsedBy          []string    `json:"used_by"`
	Config          ImageConfig `json:"config"`
	// Source records what the image was made from: versions and digests.
	Source  map[string]string `json:"source,omitempty"`
	Changed bool              `json:"changed"`
	// Error says what is wrong with its files; null when nothing is.
	Error *Error `json:"error"`
	// PreviousDigest is what the name stood for until this pull moved it.
	PreviousDigest string `json:"previous_digest,omitempty"`
}

// ImageConfig is what an image says about the commands run in it.
type ImageConfig struct {
	Env        []string `json:"env"`
	Workdir    string   `json:"workdir"`
	User       string   `json:"user"`
	Entrypoint []string `json:"entrypoint"`
	Cmd        []string `json:"cmd"`
}

// Kernel is one kernel that guests can boot.
type Kernel struct {
	ID        string            `json:"id"` // of the content, and of the name of an imported one
	Name      string            `json:"name"`
	Version   string            `json:"version"` // as uname -r says
	Arch      string            `json:"arch"`
	Digest    string            `json:"digest"` // sha256:… of the vmlinux
	SizeBytes int64             `json:"size_bytes"`
	Source    map[string]string `json:"source"`
	CreatedAt time.Time         `json:"created_at"`
	UsedBy    []string          `json:"used_by"`
	// Warnings say what could not be told of an imported kernel, or what it lacks
	// that can be missed.
	Warnings []string `json:"warnings,omitempty"`
	Changed  bool     `json:"changed"`
}

// ImportKernel asks for a kernel made of what the user has.
type ImportKernel struct {
	Name string `json:"name"`
	// Path is a Debian package, a folder, a bzImage or a vmlinux on the daemon's
	// host, absolute.
	Path string `json:"path"`
	// Modules is a folder or a package with the modules, where Path has none.
	Modules string `json:"modules,omitempty"`
	// Unchecked takes it though it seems to lack what guests need.
	Unchecked bool `json:"unchecked,omitempty"`
	// Replace lets the name pass from another kernel.
	Replace bool `json:"replace,omitempty"`
}

// CatalogEntry is one thing that can be pulled by its bare name.
type CatalogEntry struct {
	Name        string `json:"name"`
	Kind        string `json:"kind"` // of the source that this host would use
	Description string `json:"description"`
	Local       bool   `json:"local"`
	Catalog     string `json:"catalog"` // that has it; banger is the one that comes with banger
	// ShadowedBy is a catalog before this one that has the name too: pulling the
	// name gives that one's.
	ShadowedBy string   `json:"shadowed_by,omitempty"`
	Kernel     string   `json:"kernel,omitempty"` // that an image boots
	Sources    []string `json:"sources"`          // the kinds of all sources, in the order they are tried
	// Unsupported says why none of the sources can work on this host.
	Unsupported string `json:"unsupported,omitempty"`
}

// Catalog is one list of images and kernels, and how it was last read.
type Catalog struct {
	Name      string    `json:"name"`
	Location  string    `json:"location"`      // a path or a URL; empty for the one that comes with banger
	Key       string    `json:"key,omitempty"` // the key that must have signed it
	Entries   int       `json:"entries"`
	FetchedAt time.Time `json:"fetched_at"` // when it was last read
	// Error is why it could not be read the last time it was tried; entries are
	// those of the time before.
	Error *Error `json:"error"`
}

// PullImage asks for an image.
type PullImage struct {
	Name string `json:"name"` // a name of the catalog, else a registry's reference
	// As is the name it gets; else its own: that of the catalog or the reference.
	As string `json:"as,omitempty"`
	// Replace lets the name pass from another image.
	Replace bool `json:"replace,omitempty"`
	// Force makes it anew though it is there.
	Force    bool   `json:"force,omitempty"`
	Platform string `json:"platform,omitempty"` // os/arch; empty is this host's
	// PublicKey, of minisign, must have signed what is pulled, which must be a
	// bundle.
	PublicKey string `json:"public_key,omitempty"`
}

// ImportImage asks for an image from a file or folder of the daemon's host: an
// archive of docker save, an OCI layout as folder or tar, a root file system's tar.
type ImportImage struct {
	Path string `json:"path"` // absolute
	Name string `json:"name"`
	// Reference is which image of the archive is meant, where it holds several.
	Reference string `json:"reference,omitempty"`
	Kernel    string `json:"kernel,omitempty"`    // that it boots; else the default
	WorkSeed  string `json:"work_seed,omitempty"` // folder or archive that new homes are filled from; absolute
	Replace   bool   `json:"replace,omitempty"`   // the name may pass from another image
}

// RegisterImage asks for an image of a file that stays the user's own.
type RegisterImage struct {
	Root     string `json:"root"` // an ext4 file system; absolute
	Name     string `json:"name"`
	Kernel   string `json:"kernel,omitempty"`
	Initrd   string `json:"initrd,omitempty"` // not supported, and said so
	WorkSeed string `json:"work_seed,omitempty"`
	Replace  bool   `json:"replace,omitempty"`
}

// PromoteImage asks for a copy of a registered image's files under our management.
type PromoteImage struct {
	WorkSeed string `json:"work_seed,omitempty"` // else the one it has
}

// PruneImages asks for the removal of images and downloads that nothing uses.
type PruneImages struct {
	// All takes images that have a name too; else only those that lost theirs.
	All    bool `json:"all,omitempty"`
	DryRun bool `json:"dry_run,omitempty"`
}

// PrunedImages says what went, or would go.
type PrunedImages struct {
	Images     []Image `json:"images"`
	Blobs      int     `json:"blobs"` // of the download cache
	FreedBytes int64   `json:"freed_bytes"`
	DryRun     bool    `json:"dry_run"`
}

// BundleImage asks for an image as one file.
type BundleImage struct {
	Path       string `json:"path"` // of the file to write, absolute
	WithKernel bool   `json:"with_kernel,omitempty"`
	// Replace overwrites the file if it is there.
	Replace bool `json:"replace,omitempty"`
}

// Bundle is a bundle that was written.
type Bundle struct {
	Path      string         `json:"path"`
	Digest    string         `json:"digest"` // sha256:… of the file: its name in catalogs
	SizeBytes int64          `json:"size_bytes"`
	Image     string         `json:"image"`
	Kernel    string         `json:"kernel,omitempty"` // the one it brings along
	Members   []BundleMember `json:"members"`
	// Signature is the file with its signature, and Key the key that made it.
	Signature string `json:"signature,omitempty"`
	Key       string `json:"key,omitempty"`
}

// BundleMember is one file in a bundle.
type BundleMember struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"size_bytes"`
	DataBytes int64  `json:"data_bytes"` // what of it is not zeros
	Digest    string `json:"digest"`
}

// Pull asks for a kernel by name.
type Pull struct {
	Name string `json:"name"`
	// Force builds it anew though it is there.
	Force bool `json:"force,omitempty"`
}
