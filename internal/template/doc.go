// Package template keeps guests that were booted as far as all machines of a kind
// are the same, for new machines to go on from (docs/adr/0017). They are made in
// the background, after a machine of their kind has booted, and are good for one
// boot of the host; whatever goes wrong with one, machines boot without. Start at
// Manager.
package template
