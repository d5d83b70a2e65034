// Package cgroup makes control groups (version 2) for VMMs: limits on memory,
// processors, processes and disks that the kernel keeps for a whole group. Root
// has them wherever the host has version 2; an ordinary user where a part of the
// tree was delegated to them. It knows no VM. Start at Find.
package cgroup
