// Package console carries a guest's console from its VMM to a writer without
// ever letting a slow writer stop the guest, and watches it for the words of a
// kernel panic. Drivers use it; it knows no driver. Start at Copy.
package console
