// Package vmmtest is the suite every driver passes: it proves the sentences of
// package vmm, one test a sentence. The machines it starts must have the guest
// agent in them. Start at Run.
package vmmtest
