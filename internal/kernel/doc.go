// Package kernel owns the kernels guests boot: where they come from, their
// files (an uncompressed vmlinux, a file system of modules, the modules a guest
// needs before it has disks), and pulling one that is missing. It starts no
// machine and knows no image. Start at Manager; Build makes the files.
package kernel
