package catalog

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Bounds of what Parse takes.
const (
	maxEntries  = 10_000
	maxSources  = 16
	maxPackages = 2_000
	maxText     = 1_000
)

// Forms of texts that end up as another program's arguments, or in paths.
var (
	nameForm        = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	suiteForm       = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)
	packageForm     = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,99}$`) // Debian Policy 5.6.1
	envForm         = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=[^\x00\n]*$`)
	fingerprintForm = regexp.MustCompile(`^[0-9A-F]{40}$`)
	kindForm        = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)
)

func checkEntries(list string, entries []Entry) error {
	if len(entries) > maxEntries {
		return fmt.Errorf("%s: more than %d", list, maxEntries)
	}
	seen := map[string]bool{}
	for i, e := range entries {
		at := fmt.Sprintf("%s[%d]", list, i)
		if !nameForm.MatchString(e.Name) {
			return fmt.Errorf("%s: the name %.80q is not 1 to 63 of a-z, 0-9 and -, with no hyphen at either end", at, e.Name)
		}
		at = fmt.Sprintf("%s[%d] (%s)", list, i, e.Name)
		if seen[e.Name] {
			return fmt.Errorf("%s: the name is there twice", at)
		}
		seen[e.Name] = true
		if err := checkText(e.Description); err != nil {
			return fmt.Errorf("%s: description: %w", at, err)
		}
		if e.Kernel != "" && (list == "kernels" || !nameForm.MatchString(e.Kernel)) {
			return fmt.Errorf("%s: kernel: %.80q is no kernel's name", at, e.Kernel)
		}
		if len(e.Sources) == 0 || len(e.Sources) > maxSources {
			return fmt.Errorf("%s: it has %d sources, and needs 1 to %d", at, len(e.Sources), maxSources)
		}
		for j, s := range e.Sources {
			if err := checkSource(list, s); err != nil {
				return fmt.Errorf("%s: sources[%d]: %w", at, j, err)
			}
		}
	}
	return nil
}

func checkSource(list string, s Source) error {
	if !kindForm.MatchString(s.Kind) {
		return fmt.Errorf("kind: %.80q", s.Kind)
	}
	if s.Arch != "" && !kindForm.MatchString(s.Arch) {
		return fmt.Errorf("arch: %.80q", s.Arch)
	}
	switch {
	case s.Debian != nil:
		if list == "kernels" && len(s.Debian.Packages) != 1 {
			return errors.New("packages: a kernel is one package")
		}
		return checkDebian(*s.Debian)
	case s.OCI != nil && list == "kernels", s.File != nil && list == "images":
		return fmt.Errorf("kind: %s is not for %s", s.Kind, list)
	case s.OCI != nil:
		if r := s.OCI.Reference; !strings.ContainsAny(r, "/:@") || checkText(r) != nil || strings.ContainsAny(r, " \t") {
			return fmt.Errorf("reference: %.80q is not a full reference of a registry", r)
		}
	case s.Bundle != nil:
		return checkDownload(*s.Bundle)
	case s.File != nil:
		return checkDownload(*s.File)
	}
	return nil
}

func checkDebian(d Debian) error {
	if !suiteForm.MatchString(d.Suite) {
		return fmt.Errorf("suite: %.80q", d.Suite)
	}
	if !slices.Contains([]string{"", "extract", "essential", "apt", "minbase", "important", "standard"}, d.Variant) {
		return fmt.Errorf("variant: %.80q", d.Variant)
	}
	if len(d.Packages) > maxPackages {
		return fmt.Errorf("packages: more than %d", maxPackages)
	}
	for _, p := range d.Packages {
		if !packageForm.MatchString(p) {
			return fmt.Errorf("packages: %.80q is no package's name", p)
		}
	}
	if len(d.Keys) > maxSources {
		return fmt.Errorf("keys: more than %d", maxSources)
	}
	for _, k := range d.Keys {
		if !fingerprintForm.MatchString(k) {
			return fmt.Errorf("keys: %.80q is no fingerprint of 40 digits", k)
		}
	}
	if len(d.Env) > maxSources {
		return fmt.Errorf("env: more than %d", maxSources)
	}
	for _, e := range d.Env {
		if !envForm.MatchString(e) || checkText(e) != nil {
			return fmt.Errorf("env: %.80q", e)
		}
	}
	if d.TreeBytes < 0 || d.ImageBytes < 0 {
		return errors.New("tree_bytes and image_bytes cannot be negative")
	}
	return nil
}

func checkDownload(d Download) error {
	u, err := url.Parse(d.URL)
	if err != nil || d.URL == "" || checkText(d.URL) != nil || u.Opaque != "" || u.Fragment != "" {
		return fmt.Errorf("url: %.80q", d.URL)
	}
	sum, ok := strings.CutPrefix(d.Digest, "sha256:")
	if b, err := hex.DecodeString(sum); !ok || err != nil || len(b) != 32 || strings.ToLower(sum) != sum {
		return fmt.Errorf("digest: %.80q is not sha256: and 64 hex digits", d.Digest)
	}
	if d.SizeBytes < 0 {
		return errors.New("size_bytes cannot be negative")
	}
	return nil
}

// checkText refuses what would disturb a terminal or a log.
func checkText(s string) error {
	if len(s) > maxText {
		return fmt.Errorf("more than %d bytes", maxText)
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return errors.New("it holds a control character")
		}
	}
	return nil
}
