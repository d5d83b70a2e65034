package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) vmShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show VM… [flags]", Aliases: []string{"inspect"}, Short: "Show machines",
		Example: "  banger vm show web\n  banger vm show web --format '{{.network.address}}'",
		Args:    argCount(1, -1), ValidArgsFunction: a.completeVMs(-1),
	}
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		return showAll(a, args, func(ref string) (api.VM, error) { return c.VM(ctx, ref) }, func(vm api.VM) error {
			if a.ui.Quiet {
				return a.ui.Println(vm.ID)
			}
			return a.ui.Fields(vmFields(vm))
		})
	})
}

// showAll shows one thing as an object, several as an array. What could not be
// had is an error on stderr, the first of which gives the exit code.
func showAll[T any](a *app, refs []string, get func(string) (T, error), text func(T) error) error {
	var got []T
	var first error
	for _, ref := range refs {
		v, err := get(ref)
		if err != nil && len(refs) == 1 {
			return err
		}
		if err != nil {
			if first == nil {
				first = err
			}
			a.ui.Error(err, a.wantsJSONErrors(), false)
			continue
		}
		got = append(got, v)
	}
	var answer any = got
	if len(refs) == 1 {
		answer = got[0]
	}
	err := a.ui.Answer(answer, func() error {
		for i, v := range got {
			if i > 0 && !a.ui.Quiet {
				if err := a.ui.Println(""); err != nil {
					return err
				}
			}
			if err := text(v); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && first != nil {
		return exitStatus(api.KindOf(first).ExitCode())
	}
	return err
}

func vmFields(vm api.VM) [][2]string {
	when := func(t *time.Time) string {
		if t == nil {
			return ""
		}
		return t.Local().Format("2006-01-02 15:04:05") + " (" + ui.Ago(time.Now(), *t) + " ago)"
	}
	status := string(vm.Status)
	if vm.Status == api.StatusRunning && !vm.Ready {
		status += ", not ready yet"
	}
	if vm.AutoRemove {
		status += ", deleted when its command ends"
	}
	accel := vm.Accelerator
	if vm.AcceleratorReason != "" {
		accel += " (" + vm.AcceleratorReason + ")"
	}
	fields := [][2]string{
		{"name", vm.Name}, {"id", vm.ID}, {"status", status},
	}
	if vm.Error != nil {
		fields = append(fields, [2]string{"error", vm.Error.Message}, [2]string{"hint", vm.Error.Hint})
	}
	if vm.ExitCode != nil {
		fields = append(fields, [2]string{"exit code", fmt.Sprint(*vm.ExitCode)})
	}
	var ports []string
	for _, p := range vm.Network.Ports {
		ports = append(ports, fmt.Sprintf("%s:%d->%d/%s", p.HostAddress, p.HostPort, p.GuestPort, p.Protocol))
	}
	return append(fields, [][2]string{
		{"labels", sorted(vm.Labels)},
		{"image", strings.TrimSpace(vm.Image.Name + " " + vm.Image.Digest)},
		{"kernel", strings.TrimSpace(vm.Kernel.Name + " " + vm.Kernel.Version)},
		{"cpus", fmt.Sprint(vm.VCPUs)},
		{"memory", ui.Bytes(vm.MemoryBytes)},
		{"work disk", ui.Bytes(vm.DiskBytes)},
		{"root disk", rootDisk(vm)},
		{"network", strings.TrimSpace(vm.Network.Mode + " " + vm.Network.Address)},
		{"limits", limitsText(vm.Limits)},
		{"dns name", vm.Network.DNSName},
		{"ports", strings.Join(ports, ", ")},
		{"driver", vm.Driver},
		{"accelerator", accel},
		{"init", initText(vm)},
		{"failed units", strings.Join(vm.FailedUnits, ", ")},
		{"warnings", strings.Join(vm.Warnings, "; ")},
		{"created", when(&vm.CreatedAt)},
		{"started", when(vm.StartedAt)},
		{"stopped", when(vm.StoppedAt)},
		{"last used", when(vm.LastUsedAt)},
		{"at next start", pending(vm)},
	}...)
}

// limitsText says what the machine may take of the host at most.
func limitsText(l *api.VMLimits) string {
	if l == nil {
		return ""
	}
	var parts []string
	if n := l.DiskBytesPerSecond; n > 0 {
		parts = append(parts, ui.Bytes(n)+"/s of each disk")
	}
	if n := l.DiskOperationsPerSecond; n > 0 {
		parts = append(parts, fmt.Sprintf("%d operations/s of each disk", n))
	}
	if n := l.NetworkBytesPerSecond; n > 0 {
		parts = append(parts, ui.Bytes(n)+"/s of network in each direction")
	}
	return strings.Join(parts, ", ")
}

// rootDisk says how the root shares the image, and why so.
func rootDisk(vm api.VM) string {
	text := ui.Bytes(vm.SystemOverlayBytes) + " over the image"
	if vm.RootDisk != "overlay" {
		text = ui.Bytes(vm.SystemOverlayBytes) + " with the image in it"
	}
	text += " (" + vm.RootDisk
	if vm.RootDiskReason != "" {
		text += ", " + vm.RootDiskReason
	}
	return text + ")"
}

// initText says what process 1 is, why, and what it came to.
func initText(vm api.VM) string {
	text := vm.Init
	if vm.InitReason != "" {
		text += " (" + vm.InitReason + ")"
	}
	if vm.InitState != "" {
		text += ", " + vm.InitState
	}
	return text
}
