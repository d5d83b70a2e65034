// Package ocitest helps tests that need images: a real registry (Debian's
// docker-registry) on loopback, plain, with TLS or with a login; images made here
// and pushed to it; and a proxy before it that cuts, stalls, corrupts and slows.
// It is for tests only. Start at Start, Image and StartProxy.
package ocitest
