// Package fake is a driver without a VM, for tests: its machines are the real
// guest agent, served in this process, so commands run on the host as this user.
// It passes the same suite (vmmtest) as the real drivers, and its machines can be
// told to end in every way a guest can. Start at New.
package fake
