package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/guestlink"
	"github.com/bangervm/banger/internal/image"
)

// benchExec compares `vm exec` with the same command straight over the link.
func benchExec(l *lab) ([]figure, error) {
	vm, err := l.create()
	if err != nil {
		return nil, err
	}
	link := l.link(vm.ID)
	defer link.Close()
	direct := func() error {
		s, err := link.Exec(context.Background(), guestapi.ExecRequest{Argv: []string{"true"}, NoStdin: true}, guestlink.ExecOptions{})
		if err != nil {
			return err
		}
		defer s.Close()
		for {
			channel, _, err := s.Recv()
			if err != nil {
				return err
			}
			if channel == guestapi.ChannelExit {
				return nil
			}
		}
	}
	ours, theirs, err := l.pairs(func() error { _, err := l.banger("vm", "exec", vm.ID, "--", "true"); return err }, direct)
	return []figure{ratio("vm exec VM -- true", ours, theirs, "one exec straight over the guest link", 2.5)}, errors.Join(err, l.delete(vm.ID))
}

func (l *lab) link(id string) *guestlink.Client {
	sock := l.layout.VM(id).GuestSocket()
	return guestlink.NewClient(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", sock)
	}, nil)
}

// benchList compares a list of 50 stored VMs with the cheapest command there is.
func benchList(l *lab) ([]figure, error) {
	var ids []string
	for i := range 50 {
		id, err := l.banger("vm", "create", "--no-start", "-q", "--name", fmt.Sprintf("stored-%d", i))
		if err != nil {
			return nil, err
		}
		ids = append(ids, strings.TrimSpace(id))
	}
	ours, theirs, err := l.pairs(
		func() error { _, err := l.banger("vm", "list"); return err },
		func() error { _, err := l.banger("version"); return err },
	)
	return []figure{ratio("vm list with 50 VMs", ours, theirs, "banger version", 3)}, errors.Join(err, l.delete(ids...))
}

// benchCreate8 compares eight creations at once with eight one after the other.
func benchCreate8(l *lab) ([]figure, error) {
	round := func(each func(do func() error) error) (float64, error) {
		var mu sync.Mutex
		var ids []string
		took, err := timed(func() error {
			return each(func() error {
				vm, err := l.create()
				mu.Lock()
				defer mu.Unlock()
				ids = append(ids, vm.ID)
				return err
			})
		})
		return took, errors.Join(err, l.delete(ids...))
	}
	var ours, theirs []float64
	for range l.runs {
		a, err := round(func(do func() error) error {
			var wg sync.WaitGroup
			errs := make([]error, 8)
			for i := range errs {
				wg.Go(func() { errs[i] = do() })
			}
			wg.Wait()
			return errors.Join(errs...)
		})
		if err != nil {
			return nil, err
		}
		b, err := round(func(do func() error) error {
			for range 8 {
				if err := do(); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		ours, theirs = append(ours, a), append(theirs, b)
	}
	return []figure{ratio("8 vm create at once", ours, theirs, "the same one after the other", 1.1)}, nil
}

// benchBulk moves 256 MB through `vm exec -- cat`, each way, and compares checksums.
func benchBulk(l *lab) ([]figure, error) {
	vm, err := l.create("--memory", "1G") // the data lies in its memory
	if err != nil {
		return nil, err
	}
	const size = 256 << 20
	data := make([]byte, size)
	for i := 0; i < size; i += 8 {
		copy(data[i:], strconv.Itoa(i*2654435761))
	}
	sum := sha256.Sum256(data)
	want := hex.EncodeToString(sum[:])
	var in, out []float64
	for range l.runs {
		cmd := l.command("vm", "exec", vm.ID, "--", "sh", "-c", "cat > /dev/shm/x")
		cmd.Stdin = bytes.NewReader(data)
		var said bytes.Buffer
		cmd.Stderr = &said
		took, err := timed(cmd.Run)
		if err != nil {
			return nil, fmt.Errorf("into the guest: %w: %s", err, said.String())
		}
		in = append(in, took)
		got, err := l.banger("vm", "exec", vm.ID, "--", "sha256sum", "/dev/shm/x")
		if err != nil || !strings.HasPrefix(got, want) {
			return nil, fmt.Errorf("into the guest: checksum differs: %s: %w", got, err)
		}
		cmd = l.command("vm", "exec", vm.ID, "--", "cat", "/dev/shm/x")
		h := sha256.New()
		pipe, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		cmd.Stdout = w
		copied := make(chan error, 1)
		go func() { _, err := io.Copy(h, pipe); copied <- err }()
		start := time.Now()
		err = cmd.Run()
		out = append(out, time.Since(start).Seconds())
		w.Close()
		if err := errors.Join(err, <-copied); err != nil {
			return nil, fmt.Errorf("out of the guest: %w", err)
		}
		if hex.EncodeToString(h.Sum(nil)) != want {
			return nil, errors.New("out of the guest: checksum differs")
		}
	}
	rate := func(name string, runs []float64, limit float64) figure {
		return figure{Name: name, Value: size / 1e6 / median(runs), Unit: "MB/s", Limit: limit, AtLeast: true, Ours: runs}
	}
	return []figure{rate("256 MB into vm exec -- cat", in, 20), rate("256 MB out of vm exec -- cat", out, 80)}, l.delete(vm.ID)
}

// benchMemory says what an idle daemon, keeper and agent hold.
func benchMemory(l *lab) ([]figure, error) {
	vm, err := l.create()
	if err != nil {
		return nil, err
	}
	if _, err := l.banger("vm", "exec", vm.ID, "--", "true"); err != nil {
		return nil, err
	}
	time.Sleep(15 * time.Second) // idle is what is measured
	daemon, err := findProcess("daemon", "run")
	if err != nil {
		return nil, err
	}
	if d, err := l.banger("daemon", "status", "--format", "{{.pid}}"); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(d)); err == nil {
			daemon = pid
		}
	}
	keeper, err := findProcess("keeper", vm.ID)
	if err != nil {
		return nil, err
	}
	var figures []figure
	for _, p := range []struct {
		name  string
		pid   int
		limit float64
	}{{"daemon, idle", daemon, 40}, {"keeper, idle", keeper, 20}} {
		total, note, err := pss(p.pid)
		if err != nil {
			return nil, err
		}
		figures = append(figures, figure{Name: p.name, Value: total, Unit: "MiB", Limit: p.limit, Note: note})
	}
	link := l.link(vm.ID)
	defer link.Close()
	stats, err := link.Stats(context.Background())
	if err != nil {
		return nil, err
	}
	figures = append(figures, figure{Name: "agent, idle", Value: float64(stats.AgentRSSBytes) / (1 << 20), Unit: "MiB", Limit: 15, Note: "RSS"})
	return figures, l.delete(vm.ID)
}

// pss is the proportional set size of a process in MiB and what holds it.
func pss(pid int) (float64, string, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		return 0, "", err
	}
	values := map[string]float64{}
	for line := range strings.Lines(string(data)) {
		var key string
		var kib float64
		if n, _ := fmt.Sscanf(line, "%s %f", &key, &kib); n == 2 {
			values[strings.TrimSuffix(key, ":")] = kib / 1024
		}
	}
	return values["Pss"], fmt.Sprintf("PSS: %.1f anonymous, %.1f file (the binary's pages)", values["Pss_Anon"], values["Pss_File"]), nil
}

// benchImage compares the recipe, down to a bootable image, with mmdebstrap alone.
func benchImage(l *lab) ([]figure, error) {
	alone, err := mmdebstrap()
	if err != nil {
		return nil, err
	}
	root := l.root
	defer func() { l.root = root }()
	ours, theirs, err := pairs(l.long(), 0,
		func() error {
			dir, err := os.MkdirTemp("", "banger-i")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			l.root = dir
			defer func() { l.root = root }()
			_, err = l.banger("image", "pull", "debian-bookworm")
			_, stop := l.banger("daemon", "stop")
			return errors.Join(err, stop)
		},
		func() error {
			return quiet(context.Background(), alone[0], alone[1:]...)
		},
	)
	return []figure{ratio("recipe to bootable image", ours, theirs, "mmdebstrap alone to /dev/null", 1.2)}, err
}

// mmdebstrap is the command that makes the same tree from the same mirrors,
// written to stdout.
func mmdebstrap() ([]string, error) {
	recipe := image.DefaultRecipe()
	mirrors, err := debian.FindMirrors("")
	if err != nil {
		return nil, err
	}
	args := []string{
		"mmdebstrap", "--quiet", "--mode=unshare", "--format=tar", "--variant=" + recipe.Variant,
		"--include=" + strings.Join(recipe.Packages, ","), "--aptopt=Acquire::Languages \"none\"",
	}
	for _, o := range debian.HostAptOptions(context.Background()) {
		args = append(args, "--aptopt="+o)
	}
	args = append(args, recipe.Suite, "-")
	for _, source := range mirrors.Sources(recipe.Suite) {
		args = append(args, source.Line())
	}
	return args, nil
}
