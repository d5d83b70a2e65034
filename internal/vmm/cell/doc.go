// Package cell runs a VMM in namespaces of its own, with no privilege on the
// host: a user namespace in which it has no capability, a network namespace with
// nothing but its tap, a process namespace that ends with it, and a mount
// namespace that holds the files it was given and no others. An ordinary user
// may do that.
//
// Open starts this binary again as the hidden command Command, which is Main: it
// furnishes the cell from inside, hands the other end of the tap out, and becomes
// the VMM. So nothing stands between us and the VMM: it is our child, and the
// first process of its process namespace. Start at Open.
package cell
