// Package catalog owns the lists of what can be had by a bare name: the format,
// the catalog that comes with banger, and those the user configured, fetched,
// checked and kept for when there is no network. It knows that there are images
// and kernels and where one says they come from, not how they are made. Start at
// Set; docs/reference/catalog-format.md is the format.
package catalog
