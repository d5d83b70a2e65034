package qemu

import (
	"fmt"

	"github.com/bangervm/banger/internal/vmm"
)

// kernelParameters are what every guest is booted with, before the caller's own.
//
// Under software emulation mitigations protect nothing, and self-tests, the
// audit subsystem and watchdogs are the larger part of the boot; measured in
// LAB.md. tsc=reliable goes with tsc_early_khz: without it the kernel compares
// the counter with an emulated timer and may lose.
func kernelParameters(accel vmm.Accelerator, khz int64) []string {
	// panic=-1 resets at once, which -no-reboot turns into the end of QEMU.
	p := []string{"console=ttyS0", "panic=-1", "random.trust_cpu=on"}
	if accel != vmm.TCG {
		// The keyboard controller's reset line: ACPI's was seen to do nothing under
		// KVM, and the guest stood still.
		return append(p, "quiet", "reboot=k")
	}
	// Warnings are shown for the sake of timerLost; they are few.
	p = append(p, "loglevel=5", "mitigations=off", "cryptomgr.notests", "no_timer_check", "audit=0", "nowatchdog", "rcupdate.rcu_expedited=1")
	if khz > 0 {
		p = append(p, fmt.Sprintf("tsc_early_khz=%d", khz), "tsc=reliable")
	}
	return p
}
