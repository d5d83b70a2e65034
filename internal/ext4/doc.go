// Package ext4 turns a stream of tar members into an ext4 file system in one
// pass, with no root and no mount: owners, modes, times, extended attributes,
// hard links and device nodes are kept. It knows nothing of images or kernels,
// and never holds a whole file in memory. Start at Write.
package ext4
