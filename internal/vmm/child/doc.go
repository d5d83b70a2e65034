// Package child starts VMMs as child processes that die with us, and keeps what
// they say. Drivers use it; it knows no driver. Start at Start.
package child
