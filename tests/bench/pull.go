package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bangervm/banger/internal/ext4"
	"github.com/bangervm/banger/internal/layers"
	"github.com/bangervm/banger/internal/layers/layerstest"
)

// bigImage is the reference of the image that benchPull pulls.
const bigImage = "team/big"

// benchPull compares the way of a large image from a local registry to a bootable
// disk with skopeo and umoci on the same way to a folder. Our part runs in a
// process of its own, whose memory and processor time are the figures.
func benchPull(l *lab) ([]figure, error) {
	dir, err := os.MkdirTemp(filepath.Dir(l.root), "banger-b")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	fmt.Fprintln(os.Stderr, "making the image…")
	if _, err := layerstest.Layout(filepath.Join(dir, "layout"), "v1", layerstest.Gzip, layerstest.Standard().Sources()); err != nil {
		return nil, err
	}
	address, stop, err := startRegistry(dir)
	if err != nil {
		return nil, err
	}
	defer stop()
	ctx := context.Background()
	ref := "docker://" + address + "/" + bigImage + ":v1"
	if err := quiet(ctx, "skopeo", "copy", "--dest-tls-verify=false", "oci:"+filepath.Join(dir, "layout")+":v1", ref); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(filepath.Join(dir, "layout")); err != nil {
		return nil, err
	}
	var costs, again []pullCost
	pull := func(fresh bool, all *[]pullCost) error {
		if fresh {
			if err := os.RemoveAll(filepath.Join(dir, "blobs")); err != nil {
				return err
			}
		}
		c, err := pullInChild(address, dir)
		*all = append(*all, c)
		return err
	}
	ours, theirs, err := pairs(l.long(), 0, func() error { return pull(true, &costs) }, func() error {
		return errors.Join(
			quiet(ctx, "skopeo", "copy", "--src-tls-verify=false", ref, "oci:"+filepath.Join(dir, "copy")+":v1"),
			quiet(ctx, "umoci", "unpack", "--image", filepath.Join(dir, "copy")+":v1", filepath.Join(dir, "bundle")),
			os.RemoveAll(filepath.Join(dir, "copy")), os.RemoveAll(filepath.Join(dir, "bundle")))
	})
	if err != nil {
		return nil, err
	}
	cached := make([]float64, 0, len(ours))
	for range ours {
		t, err := timed(func() error { return pull(false, &again) })
		if err != nil {
			return nil, err
		}
		cached = append(cached, t)
	}
	return pullFigures(ours, theirs, cached, costs[len(costs)-len(ours):]), nil
}

func pullFigures(ours, theirs, cached []float64, costs []pullCost) []figure {
	var memory, busy []float64
	for i, c := range costs {
		memory = append(memory, float64(c.MaxRSS)/(1<<20))
		busy = append(busy, ours[i]/(c.CPU.Seconds()/2))
	}
	last := costs[len(costs)-1]
	note := fmt.Sprintf("processor time %.1f s; at work: decompress %.1f s, hash %.1f s, merge %.1f s", last.CPU.Seconds(),
		last.Stats.Decompress.Seconds(), last.Stats.Hash.Seconds(), last.Stats.Merge.Seconds())
	utilisation := figure{Name: "the same, wall against processor time / 2", Value: median(busy), Unit: "x", Limit: 1.3, Note: note}
	resident := figure{Name: "memory during it, at most", Value: median(memory), Unit: "MiB", Limit: 200}
	return []figure{
		ratio("1.5 GB, 50,000 entries, 10 layers: registry to bootable", ours, theirs, "skopeo copy, umoci unpack", 0.8),
		utilisation, resident,
		ratio("the same with its layers cached", cached, ours, "the first time", 0.7),
	}
}

// startRegistry runs Debian's docker-registry on a loopback port.
func startRegistry(dir string) (address string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	address = l.Addr().String()
	if err := l.Close(); err != nil {
		return "", nil, err
	}
	config := fmt.Sprintf("version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: %s\n", filepath.Join(dir, "registry"), address)
	path := filepath.Join(dir, "registry.yml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return "", nil, err
	}
	cmd := exec.Command("docker-registry", "serve", path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://" + address + "/v2/")
		if err == nil {
			_ = resp.Body.Close()
			return address, stop, nil
		}
		if time.Now().After(deadline) {
			stop()
			return "", nil, err
		}
	}
}

// pullCost is what a child says of its work.
type pullCost struct {
	Stats  layers.Stats
	CPU    time.Duration
	MaxRSS int64
}

func pullInChild(address, dir string) (c pullCost, err error) {
	self, err := os.Executable()
	if err != nil {
		return c, err
	}
	cmd := exec.Command(self, "-pull-child", address, dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return c, fmt.Errorf("pull: %w", err)
	}
	if err := json.Unmarshal(out, &c); err != nil {
		return c, err
	}
	u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	c.CPU, c.MaxRSS = time.Duration(u.Utime.Nano()+u.Stime.Nano()), u.Maxrss<<10
	return c, os.Remove(filepath.Join(dir, "rootfs.ext4"))
}

// pullChild fetches the blobs that are not there and makes the disk of them.
func pullChild(address, dir string) error {
	var manifest struct {
		Config struct{ Digest string }
		Layers []struct {
			Digest string
			Size   int64
		}
	}
	base := "http://" + address + "/v2/" + bigImage
	if err := getJSON(base+"/manifests/v1", &manifest); err != nil {
		return err
	}
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := getJSON(base+"/blobs/"+manifest.Config.Digest, &config); err != nil {
		return err
	}
	folder := filepath.Join(dir, "blobs")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(4)
	var list []layers.Layer
	for i, l := range manifest.Layers {
		path := filepath.Join(folder, l.Digest)
		group.Go(func() error { return getBlob(base+"/blobs/"+l.Digest, path, l.Digest) })
		list = append(list, layers.Layer{
			Name: l.Digest, DiffID: config.RootFS.DiffIDs[i], Size: l.Size,
			Open: func() (io.ReadCloser, error) { return os.Open(path) },
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	_, stats, err := layers.Write(context.Background(), filepath.Join(dir, "rootfs.ext4"), ext4.UUID("bench"), list, layers.Limits{}, nil)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(pullCost{Stats: stats})
}

func getJSON(url string, v any) error {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(v)
}

func getBlob(url, path, digest string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	f, err := os.Create(path + ".partial")
	if err != nil {
		return err
	}
	sum := sha256.New()
	_, err = io.CopyBuffer(io.MultiWriter(f, sum), resp.Body, make([]byte, 256<<10))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); resp.StatusCode != http.StatusOK || got != digest {
		return fmt.Errorf("%s: %s, %s", url, resp.Status, got)
	}
	return os.Rename(path+".partial", path)
}
