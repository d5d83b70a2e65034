// Command probe says what it sees: the only program of an image with nothing
// else in it.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	dir, _ := os.Getwd()
	groups, _ := os.Getgroups()
	modes := map[string]string{}
	for _, path := range []string{"/", "/tmp", "/root", "/etc", "/dev/null", "/proc/self", "/sys/class", "/run", "/root/.ssh/authorized_keys"} {
		if fi, err := os.Lstat(path); err == nil {
			modes[path] = fi.Mode().String()
		}
	}
	files := map[string]string{}
	for _, path := range []string{"/etc/hostname", "/etc/resolv.conf", "/etc/machine-id", "/proc/mounts"} {
		if b, err := os.ReadFile(path); err == nil {
			files[path] = string(b)
		}
	}
	err := json.NewEncoder(os.Stdout).Encode(map[string]any{
		"argv": os.Args, "dir": dir, "uid": os.Getuid(), "gid": os.Getgid(), "groups": groups, "env": os.Environ(), "modes": modes, "files": files,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
