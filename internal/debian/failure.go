package debian

import (
	"path"
	"strings"

	"github.com/bangervm/banger/api"
)

// failure turns what mmdebstrap and apt said into the error of a bootstrap that
// failed: which file, from where, why, and what to do.
func (o *output) failure(status error) *api.Error {
	all := strings.Join(o.errors, "\n")
	if strings.Contains(all, "No space left on device") || strings.Contains(all, "enough free space") {
		return noRoom()
	}
	for _, e := range o.errors {
		if url, cause, ok := failedFetch(e); ok {
			err := api.Errorf(api.KindUnavailable, "cannot download %s from %s: %s", fileOf(url), url, cause).
				WithHint("banger config show")
			err.Retryable = true
			return err
		}
	}
	for _, e := range o.errors {
		if rest, ok := strings.CutPrefix(e, "W: GPG error: "); ok {
			return api.Errorf(api.KindUnavailable, "cannot verify the package lists: %s", rest).
				WithHint("banger config show")
		}
	}
	for _, e := range o.errors {
		if strings.Contains(e, "newuidmap") || strings.Contains(e, "newgidmap") || strings.Contains(e, "subuid") || strings.Contains(e, "subgid") {
			return api.Errorf(api.KindUnsupported, "cannot build without root: %s", strings.TrimPrefix(e, "E: ")).
				WithHint("sudo apt-get install uidmap && sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER")
		}
	}
	// apt's own reason comes before mmdebstrap's account of apt's exit code.
	for _, e := range o.errors {
		e = strings.TrimPrefix(e, "E: ")
		switch {
		case strings.HasPrefix(e, "apt-get ") && strings.Contains(e, "failed"), strings.HasPrefix(e, "mmdebstrap failed"), strings.HasPrefix(e, "run_chroot"):
			continue
		case strings.Contains(e, "Unable to locate package"), strings.Contains(e, "has no installation candidate"):
			return api.Errorf(api.KindUnavailable, "cannot find a package at the mirror: %s", e).WithHint("banger config show")
		}
		return api.Errorf(api.KindInternal, "cannot build from packages: %s", e)
	}
	if len(o.last) > 0 {
		return api.Errorf(api.KindInternal, "cannot build from packages: mmdebstrap: %w: %s", status, o.last[len(o.last)-1])
	}
	return api.Errorf(api.KindInternal, "cannot build from packages: mmdebstrap: %w", status)
}

func noRoom() *api.Error {
	return api.Errorf(api.KindNoSpace, "cannot unpack the packages: no space left on the disk").WithHint("df -h")
}

// fileOf names the file at the address for people: apt asks for package lists
// by their hash, which tells nobody anything.
func fileOf(url string) string {
	before, _, ok := strings.Cut(url, "/by-hash/")
	if !ok {
		return path.Base(url)
	}
	if i := strings.Index(before, "/dists/"); i >= 0 {
		before = before[i+1:]
	}
	return "a package list of " + before
}

// failedFetch reads apt's account of a download that failed:
// E: Failed to fetch http://mirror/path/file.deb  404  Not Found [IP: …]
func failedFetch(line string) (url, cause string, ok bool) {
	_, rest, ok := strings.Cut(line, ": Failed to fetch ")
	if !ok {
		return "", "", false
	}
	url, cause, _ = strings.Cut(rest, " ")
	cause = strings.Join(strings.Fields(cause), " ")
	if i := strings.Index(cause, " [IP:"); i >= 0 {
		cause = cause[:i]
	}
	if cause == "" {
		cause = "the download failed"
	}
	return url, cause, url != ""
}
