package api

// FetchFirecracker asks for a release of Firecracker. Empty, it is the one that
// the configuration names, else the one pinned in banger.
type FetchFirecracker struct {
	URL string `json:"url,omitempty"` // of the release's archive, or of the program itself
	// Digest is that of the program, sha256: and 64 hexadecimal digits; it goes
	// with URL.
	Digest string `json:"digest,omitempty"`
}

// Firecracker is the program that was fetched.
type Firecracker struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
	URL     string `json:"url"`
	Changed bool   `json:"changed"`
}
