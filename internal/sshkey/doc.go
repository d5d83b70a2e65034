// Package sshkey finds the user's SSH key, the one that is authorised in every
// VM's home: the one the configuration names, else an ed25519 of ours, made on
// first need. It reads and makes files of the host, and knows no VM. Start at
// Keys.
package sshkey
