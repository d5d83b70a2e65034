// Command banger-guest is PID 1 and the agent of every VM. It is built static
// and small, and embedded in banger; see package guest.
package main

import (
	"fmt"
	"os"

	"github.com/bangervm/banger/internal/guest"
)

// build is set by the linker.
var build = "dev"

func main() {
	if err := guest.Main(build); err != nil {
		fmt.Fprintf(os.Stderr, "banger-guest: %v\n", err)
		os.Exit(2)
	}
}
