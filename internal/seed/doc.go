// Package seed makes work seeds: the file system that fills the home of a new
// VM when the image's owner gave one, in place of what the image has in /root.
// A seed is ext4 (see layout.ImageDir.WorkSeed), and its top folder is the home
// itself; everything in it belongs to root. It is made from a folder or a tar
// archive, which is not trusted: paths, kinds, counts and sizes are bounded. The
// guest copies it into the work disk once (internal/guest, home.go). Start at Write.
package seed
