package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) vmSet() *cobra.Command {
	var vcpu int
	var memory, disk, overlay int64
	var words []string
	var image, pull string
	cmd := &cobra.Command{
		Use: "set VM [flags]", Short: "Change a machine",
		Long: "Change a machine. Disks grow, at once where it runs; CPUs and memory change at the next start.\n" +
			"So does the image, under the disks the machine has: its home stays, and so do the files that were changed.",
		Example: "  banger vm set web --memory 4G --vcpu 4\n  banger vm set web --disk-size 20G\n  banger vm set web --label project=shop\n  banger vm set web --image debian-trixie",
		Args:    argCount(1, 1), ValidArgsFunction: a.completeVMs(1),
	}
	fs := cmd.Flags()
	fs.SetNormalizeFunc(spellings)
	fs.IntVar(&vcpu, "vcpu", 0, "number of CPUs")
	mem := memoryFlag(&memory)
	fs.Var(mem, "memory", "memory, e.g. 2G; a bare number is MiB")
	fs.VarPF(mem, "mem", "m", "").Hidden = true
	fs.Var(diskFlag(&disk), "disk-size", "size of the work disk, not below what it is")
	fs.Var(diskFlag(&overlay), "system-overlay-size", "room for changes to the image's files, not below what it is")
	fs.StringArrayVar(&words, "label", nil, "label KEY=VALUE; KEY= removes it; may be repeated")
	fs.StringVar(&image, "image", "", "image to boot from the next start on; home and changed files stay")
	fs.Var(&choice{value: &pull, allowed: []string{"missing", "always", "never"}}, "pull", "when to pull the image (default missing)")
	laterFlag(fs, "nat", "", "the network mode bridge, which NAT belongs to, is not in this version")
	laterFlag(fs, "auto-stop", "", "stopping idle machines is not in this version")
	laterFlag(fs, "ttl", "", "machines that expire are not in this version")
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		var req api.SetVM
		if fs.Changed("vcpu") {
			if vcpu < 1 {
				return api.Errorf(api.KindInvalid, "cannot use --vcpu %d: want 1 or more", vcpu)
			}
			req.VCPUs = &vcpu
		}
		if memory > 0 {
			req.MemoryBytes = &memory
		}
		if disk > 0 {
			req.DiskBytes = &disk
		}
		if overlay > 0 {
			req.SystemOverlayBytes = &overlay
		}
		var err error
		if req.Labels, err = labels(words); err != nil {
			return err
		}
		if fs.Changed("image") && image == "" {
			return api.Errorf(api.KindInvalid, "cannot use an empty --image").WithHint("banger image list")
		}
		if pull != "" && image == "" {
			return api.Errorf(api.KindInvalid, "cannot use --pull without --image")
		}
		req.Image, req.Pull = image, pull
		if req.Image == "" && req.VCPUs == nil && req.MemoryBytes == nil && req.DiskBytes == nil && req.SystemOverlayBytes == nil && req.Labels == nil {
			return api.Errorf(api.KindInvalid, "cannot set vm %q: nothing to change was given", args[0]).WithHint("banger vm set --help")
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		vm, err := c.SetVM(ctx, args[0], req)
		if err != nil {
			return err
		}
		switch {
		case len(vm.Pending) > 0:
			a.ui.Note("vm %s: %s from the next start on (banger vm restart %s)", ui.Clean(vm.Name), ui.Clean(pending(vm)), ui.Clean(vm.Name))
		case vm.Changed && image != "":
			a.ui.Note("vm %s: image %s from the next start on (banger vm start %s)", ui.Clean(vm.Name), ui.Clean(vm.Image.Name), ui.Clean(vm.Name))
		case !vm.Changed:
			a.ui.Note("vm %s is so already", ui.Clean(vm.Name))
		}
		return a.printVM(vm)
	})
}

// pending names what changes at the next start as the flags do.
func pending(vm api.VM) string {
	var words []string
	for _, p := range vm.Pending {
		switch p {
		case "vcpus":
			p = "vcpu"
		case "memory_bytes":
			p = "memory"
		case "disk_bytes":
			p = "disk-size"
		case "system_overlay_bytes":
			p = "system-overlay-size"
		}
		words = append(words, p)
	}
	return strings.Join(words, ", ")
}
