// Package image owns the root file systems VMs are made from: the catalog of
// what can be had, making one from a recipe, a registry, an archive or a file of
// the user's own, the store of those that are here, deleting and pruning. It
// starts no machine and knows no kernel but by name. Start at Manager; a Source
// knows how images are made from one kind of origin, package pull how they are
// made once and published. Why it is so: docs/adr/0009-images.md.
package image
