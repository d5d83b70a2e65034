package host

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/bangervm/banger/api"
)

// Tool is a program found on this host.
type Tool struct {
	Name    string
	Path    string
	Version string // as the program says; empty when it does not
}

// packages are Debian's packages of the tools, for hints.
var packages = map[string]string{
	"mke2fs": "e2fsprogs", "resize2fs": "e2fsprogs", "e2fsck": "e2fsprogs", "dumpe2fs": "e2fsprogs", "debugfs": "e2fsprogs", "tune2fs": "e2fsprogs",
	"mmdebstrap": "mmdebstrap", "newuidmap": "uidmap", "newgidmap": "uidmap",
	"qemu-system-x86_64": "qemu-system-x86", "qemu-system-aarch64": "qemu-system-arm",
}

// sbin are looked at after PATH: an ordinary user's lacks them on Debian,
// though the tools in them work for everybody.
var sbin = []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}

// Find gives the path of a program, from PATH or the sbin folders.
func (h *Real) Find(name string) (string, error) {
	dirs := append(filepath.SplitList(h.env("PATH")), sbin...)
	if strings.ContainsRune(name, '/') {
		dirs = []string{""}
	}
	for _, dir := range dirs {
		if path := filepath.Join(dir, name); (filepath.IsAbs(path) || dir == "") && executable(path) {
			return path, nil
		}
	}
	e := api.Errorf(api.KindUnavailable, "cannot find the program %s", name)
	if p := packages[filepath.Base(name)]; p != "" {
		e = api.Errorf(api.KindUnavailable, "cannot find the program %s (package %s)", name, p).WithHint("sudo apt-get install -y %s", p)
	}
	return "", e
}

func executable(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode().Perm()&0o111 != 0
}

// LookTool says with an error for people that a program is missing.
func (h *Real) LookTool(name string) error {
	_, err := h.Find(name)
	return err
}

var versionNumber = regexp.MustCompile(`\d+\.\d+(\.\d+)*`)

// Tool finds a program and asks for its version.
func (h *Real) Tool(ctx context.Context, name string) (Tool, error) {
	path, err := h.Find(name)
	if err != nil {
		return Tool{}, err
	}
	t := Tool{Name: name, Path: path}
	flag := "--version"
	switch filepath.Base(name) {
	case "mke2fs", "e2fsck", "dumpe2fs", "debugfs":
		flag = "-V"
	case "resize2fs", "tune2fs", "newuidmap", "newgidmap": // say none without work to do
		return t, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, flag)
	cmd.Env = toolEnv(h.env)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return t, api.Errorf(api.KindUnavailable, "cannot ask %s for its version: %w", path, err)
	}
	t.Version = versionNumber.FindString(string(out))
	return t, nil
}

// toolEnv is the environment of a tool: its messages in English, so that they
// can be read, and nothing that changes what it does.
func toolEnv(env func(string) string) []string {
	path := strings.Join(sbin, ":")
	if p := env("PATH"); p != "" {
		path = p + ":" + path
	}
	return []string{"PATH=" + path, "LC_ALL=C.UTF-8", "HOME=/"}
}
