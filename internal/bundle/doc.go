// Package bundle owns the format of a bundle: one zstd-compressed tar archive
// with a manifest and the files it names, in its order, nothing else. It writes
// one, the same bytes for the same content, and reads one that nobody vouches
// for, in one pass and within bounds. What the files mean it does not know: who
// writes says the kind and gives a description, who reads says which members it
// takes. Start at Write and Read; docs/reference/bundle-format.md is the format.
package bundle
