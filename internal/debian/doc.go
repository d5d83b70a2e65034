// Package debian gets signed packages from the Debian archive by mmdebstrap and
// hands them on as one tar stream: which mirrors and proxies to use, what
// mmdebstrap says about its progress, what went wrong in words, and that it
// leaves nothing behind. It knows neither images nor kernels. Start at
// Bootstrap.
package debian
