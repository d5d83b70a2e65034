// Package layers merges the layers of an OCI image into one file system: bottom
// first, each applied to the tree of those below it as container runtimes do,
// streaming. File content goes straight into the ext4 file as it is unpacked;
// the tree of names stays in memory until the end (internal/ext4's Builder), so
// whiteouts, replaced files and links across layers cost no second pass.
//
// It knows layers as streams: no registry, no image record. Layers are hostile:
// what they may cost is in Limits, where a path may lead in tree.go. Start at
// Write.
package layers
