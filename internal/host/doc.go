// Package host is the outside world behind a seam: what this machine has (CPUs,
// memory, disk space, tools, user namespaces, resolvers), which processes live,
// and the ext4 files made with e2fsprogs.
//
// Real asks the machine; Fake, beside it, says what a test tells it to. Nothing
// here knows a VM. Start reading at real.go.
package host
