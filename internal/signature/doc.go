// Package signature signs files and checks their signatures, in the format of
// minisign (https://jedisct1.github.io/minisign): a small text beside the file,
// Ed25519 over the BLAKE2b hash of it. It decides for nobody whom to trust. Why
// this format: docs/adr/0010-signatures.md. Start at Verify and Sign.
package signature
