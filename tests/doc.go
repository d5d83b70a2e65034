// Package tests runs the built banger as its users do: real daemon, real
// keepers, real machines. Each test has a root of its own, cloned from one in
// which the default image and kernel were built once; at its end nothing of it
// may be left, and that is checked. Start at host_test.go.
//
// BANGER_BIN names the program (../bin/banger). BANGER_TEST_STORE names a root
// that is kept from run to run, so that developers build the image once.
package tests
