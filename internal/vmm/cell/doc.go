// Package cell runs a VMM in namespaces of its own, with no privilege on the
// host: a network namespace with nothing but its tap, a process namespace that
// ends with it, and a mount namespace that holds the files it was given and no
// others. For an ordinary user there is a user namespace around them, in which
// nobody has a capability; for root the VMM becomes a user of the host that is
// nothing else's. The mounts go with the last process, however it ends.
//
// Open starts this binary again as the hidden command Command, which is Main: it
// furnishes the cell from inside, hands the other end of the tap out, and becomes
// the VMM. So nothing stands between us and the VMM: it is our child, and the
// first process of its process namespace. Start at Open.
package cell
