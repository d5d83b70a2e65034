package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
)

// createFlags are what vm create and vm run have in common.
type createFlags struct {
	req      api.CreateVM
	labels   []string
	env      []string
	envFiles []string
	entry    string
	timeout  time.Duration
}

func (f *createFlags) add(a *app, cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.SetNormalizeFunc(spellings)
	r := &f.req
	fs.StringVar(&r.Name, "name", "", "name, 1 to 63 of a-z 0-9 - (generated when not given)")
	fs.StringVar(&r.Image, "image", "", "image to make it from (default debian-bookworm, or default_image_name)")
	fs.Var(&choice{value: &r.Pull, allowed: []string{"missing", "always", "never"}}, "pull", "when to pull the image and the kernel (default missing)")
	fs.StringVar(&r.Kernel, "kernel", "", "kernel to boot (default the image's)")
	fs.IntVar(&r.VCPUs, "vcpu", 0, "number of CPUs (default a quarter of the host's, 1 to 4)")
	memory := memoryFlag(&r.MemoryBytes)
	fs.Var(memory, "memory", "memory, e.g. 512M or 2G; a bare number is MiB (default an eighth of the host's, 512M to 8G)")
	fs.VarPF(memory, "mem", "m", "").Hidden = true
	fs.Var(diskFlag(&r.DiskBytes), "disk-size", "size of the work disk, the home (default 8G, sparse)")
	fs.Var(diskFlag(&r.SystemOverlayBytes), "system-overlay-size", "room for changes to the image's files, or the whole root with another --root-disk than overlay (default 8G, sparse)")
	fs.Var(&choice{value: &r.RootDisk, allowed: []string{"auto", "overlay", "reflink", "dm-snapshot"}}, "root-disk",
		"how the root shares the image: docs/guides/root-disks.md (default auto: overlay)")
	fs.Var(&choice{value: &r.Network, allowed: []string{"user", "none"}, refused: map[string]string{
		"bridge": "cannot use network bridge: not in this version",
	}}, "network", "network (default user)")
	fs.Var(&choice{value: &r.Driver, allowed: []string{"auto", "firecracker", "qemu"}}, "driver", "what runs the machine (default auto: firecracker where KVM works, else qemu)")
	fs.Var(&choice{value: &r.Accelerator, allowed: []string{"auto", "kvm", "tcg"}}, "accel", "accelerator (default auto: kvm where it works, else tcg)")
	fs.Var(&choice{value: &r.Init, allowed: []string{"auto", "agent", "image"}}, "init", "process 1: our agent, or the image's own init with the agent beside it (default auto: what the image runs)")
	fs.StringArrayVar(&f.labels, "label", nil, "label KEY=VALUE, may be repeated")
	fs.StringArrayVarP(&f.env, "env", "e", nil, "environment variable KEY=VALUE for every command in the machine, or KEY to take ours; may be repeated")
	fs.StringArrayVar(&f.envFiles, "env-file", nil, "file of KEY=VALUE lines; may be repeated")
	fs.StringVarP(&r.Workdir, "workdir", "w", "", "folder that commands begin in")
	fs.StringVarP(&r.User, "user", "u", "", "user of commands: name or id, also with :group (default the image's, else root)")
	fs.StringVar(&f.entry, "entrypoint", "", "program that the command of vm run is handed to as arguments; image: the image's own entrypoint")
	fs.StringVar(&r.RequestID, "request-id", "", "key that makes a second call with the same parameters give the same machine")
	fs.Var(&durationFlag{d: &f.timeout}, "timeout", "give up after this long (exit code 124)")
	cmd.SetHelpFunc(a.helpWithDefaults)
	laterFlag(fs, "publish", "p", "publishing ports is not in this version")
	laterFlag(fs, "nat", "", "the network mode bridge, which NAT belongs to, is not in this version")
	laterFlag(fs, "auto-stop", "", "stopping idle machines is not in this version")
	laterFlag(fs, "ttl", "", "machines that expire are not in this version")
	laterFlag(fs, "volume", "v", "banger mounts no folders of the host into a machine; files are copied", "banger vm cp SRC VM:DST")
}

// spellings are the words accepted beside the listed ones.
func spellings(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	switch name {
	case "cpus", "vcpus":
		name = "vcpu"
	case "disk":
		name = "disk-size"
	}
	return pflag.NormalizedName(name)
}

// request puts the flags together. changed says which were given.
func (f *createFlags) request(a *app, fs *pflag.FlagSet) (api.CreateVM, error) {
	req := f.req
	if fs.Changed("vcpu") && req.VCPUs < 1 {
		return req, api.Errorf(api.KindInvalid, "cannot use --vcpu %d: want 1 or more", req.VCPUs)
	}
	if fs.Changed("name") && req.Name == "" {
		return req, api.Errorf(api.KindInvalid, "cannot use --name %q: want 1 to 63 of a-z 0-9 -", req.Name)
	}
	if fs.Changed("request-id") && req.RequestID == "" {
		return req, api.Errorf(api.KindInvalid, "cannot use an empty --request-id")
	}
	var err error
	if req.Labels, err = labels(f.labels); err != nil {
		return req, err
	}
	if req.Env, err = a.environment(f.envFiles, f.env); err != nil {
		return req, err
	}
	switch f.entry {
	case "":
	case "image":
		req.ImageEntrypoint = true
	default:
		req.Entrypoint = []string{f.entry}
	}
	return req, nil
}

func (a *app) vmCreate() *cobra.Command {
	var f createFlags
	var w waiting
	cmd := &cobra.Command{
		Use:   "create [flags]",
		Short: "Make a machine and start it",
		Long:  "Make a machine from an image, pulling image and kernel if they are missing, and start it.",
		Example: `  banger vm create
  banger vm create --name web --vcpu 2 --memory 2G
  banger vm create --no-start --label project=shop`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return imageHint(cmd, args[0])
			}
			return nil
		},
	}
	f.add(a, cmd)
	cmd.Flags().BoolVar(&f.req.NoStart, "no-start", false, "make it only")
	w.flags(cmd, false)
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		req, err := f.request(a, cmd.Flags())
		if err != nil {
			return err
		}
		w.timeout = f.timeout
		key := req.Name
		if key == "" {
			key = "vm"
		}
		return a.vmOperations(ctx, []string{key}, w, func(ctx context.Context, c *client.Client, _ string) (api.Operation, error) {
			return c.CreateVM(ctx, req)
		})
	})
}

// imageHint refuses a word that is neither flag nor path.
func imageHint(cmd *cobra.Command, word string) error {
	return api.Errorf(api.KindInvalid, "%s: unexpected argument %q", cmd.CommandPath(), word).
		WithHint("%s --image %s", cmd.CommandPath(), word)
}

// isPath says whether a word names a folder rather than an image.
func isPath(word string) bool {
	return strings.HasPrefix(word, "/") || strings.HasPrefix(word, ".") || strings.HasPrefix(word, "~")
}
