// Package image owns the root file systems VMs are made from: the catalog of
// what can be had, building one from a Debian recipe, the store of those that
// are here, and pulling one that is missing. It starts no machine and knows no
// kernel but by name. Start at Manager; Build makes the files.
package image
