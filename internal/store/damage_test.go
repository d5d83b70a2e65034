package store

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bangervm/banger/api"
	"github.com/google/go-cmp/cmp"
)

// filled makes a closed store with VMs and gives its path.
func filled(t *testing.T, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "banger.db")
	d := open(t, path)
	for i := range n {
		v := VM{ID: fmt.Sprintf("id%d", i), Name: fmt.Sprintf("vm%d", i), CreatedAt: day, Labels: map[string]string{"x": strings.Repeat("y", 500)}}
		if err := d.InsertVM(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// files reads everything beside the store but what holds nothing of its own:
// the shared-memory index, an empty log.
func files(t *testing.T, path string) map[string]string {
	t.Helper()
	all := map[string]string{}
	names, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "-shm") {
			continue
		}
		if fi, err := os.Stat(name); err == nil && fi.IsDir() {
			all[name] = "folder"
			continue
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "-wal") && len(data) == 0 {
			continue
		}
		all[name] = string(data)
	}
	return all
}

func exec(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(path, "immediate"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(s, err)
		}
	}
}

func TestADamagedStoreIsRefusedAndLeftAlone(t *testing.T) {
	t.Parallel()
	write := func(data string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tc := range map[string]struct {
		damage func(t *testing.T, path string)
		kind   api.Kind
		says   string
	}{
		"garbage":      {write(strings.Repeat("garbage ", 1000)), api.KindInternal, "does not begin as"},
		"a few bytes":  {write("SQL"), api.KindInternal, "does not begin as"},
		"only a head":  {write(magic), api.KindInternal, "damaged"},
		"a text":       {write("Filesystem full\n"), api.KindInternal, "damaged"},
		"half a file":  {func(t *testing.T, path string) { truncate(t, path, 6000) }, api.KindInternal, "damaged"},
		"zeroed pages": {func(t *testing.T, path string) { overwrite(t, path, 4096, make([]byte, 8192)) }, api.KindInternal, "damaged"},
		"a flipped page": {func(t *testing.T, path string) {
			overwrite(t, path, 4096*7, []byte(strings.Repeat("\xff", 4096)))
		}, api.KindInternal, "damaged"},
		"emptied beside its log": {func(t *testing.T, path string) {
			write("log")(t, path+"-wal")
			truncate(t, path, 0)
		}, api.KindInternal, "is empty, but its log"},
		"missing beside its log": {func(t *testing.T, path string) {
			write("log")(t, path+"-wal")
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, api.KindInternal, "is missing, but its log"},
		"a folder": {func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			mkdir(t, path)
		}, api.KindInternal, "not a regular file"},
		"another program's": {func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			exec(t, path, "CREATE TABLE photos (id)")
		}, api.KindInternal, "another program's"},
		"tables dropped": {func(t *testing.T, path string) {
			exec(t, path, "DROP TABLE vms", "DROP TABLE images", "DROP TABLE kernels", "DROP TABLE operations", "DROP TABLE events", "PRAGMA user_version=0")
		}, api.KindInternal, "damaged"},
		"damaged with a log": {func(t *testing.T, path string) {
			d := open(t, path)
			if err := d.DeleteVM(t.Context(), "id3"); err != nil {
				t.Fatal(err)
			}
			crash(t, d, path)
			overwrite(t, path, 4096*7, []byte(strings.Repeat("\xff", 4096)))
		}, api.KindInternal, "damaged"},
		"a newer schema": {func(t *testing.T, path string) {
			exec(t, path, "ALTER TABLE vms ADD COLUMN future TEXT", fmt.Sprintf("PRAGMA user_version=%d", len(migrations)+1))
		}, api.KindUnsupported, "written by a newer banger"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filled(t, 40)
			tc.damage(t, path)
			before := files(t, path)
			d, err := Open(t.Context(), path, slog.New(slog.DiscardHandler))
			if err == nil {
				_ = d.Close()
				t.Fatal("opened")
			}
			wantKind(t, err, tc.kind)
			if !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("%q does not say %q and the path", err, tc.says)
			}
			if api.AsError(err).Hint == "" {
				t.Errorf("no hint: %v", err)
			}
			if diff := cmp.Diff(before, files(t, path)); diff != "" {
				t.Errorf("files changed: %.2000s", diff)
			}
		})
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func overwrite(t *testing.T, path string, at int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
}

func TestAnEmptyFileIsAFreshStore(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "banger.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := open(t, path).VMs(t.Context())
	if err != nil || list == nil || len(list) != 0 {
		t.Fatal(list, err)
	}
}

func TestTheStoreIsClosedToOthers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "banger.db")
	d := open(t, path)
	if err := d.InsertVM(t.Context(), VM{ID: "1", Name: "a"}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, path + "-wal", path + "-shm"} {
		fi, err := os.Stat(p)
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", p, fi.Mode(), err)
		}
	}
}

func TestAStoreThatCannotBeWrittenIsDenied(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may write everything")
	}
	path := filled(t, 1)
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), path, slog.New(slog.DiscardHandler))
	wantKind(t, err, api.KindDenied)
}

func TestABrokenRecordHarmsNoOther(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "banger.db")
	d := open(t, path)
	for _, id := range []string{"1", "2", "3"} {
		if err := d.InsertVM(ctx, VM{ID: id, Name: "vm" + id, CreatedAt: day}); err != nil {
			t.Fatal(err)
		}
		if err := d.PublishImage(ctx, Image{ID: id, Name: "image" + id, CreatedAt: day}, nil); err != nil {
			t.Fatal(err)
		}
		if err := d.InsertKernel(ctx, Kernel{ID: id, Name: "kernel" + id, CreatedAt: day}); err != nil {
			t.Fatal(err)
		}
		if err := d.SaveOperation(ctx, Operation{ID: id, Kind: "vm.create", Target: id, Status: api.OperationRunning, CreatedAt: day}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Check(ctx); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"vms", "images", "kernels", "operations"} {
		exec(t, path, `UPDATE `+table+` SET record='{"id":' WHERE id='2'`)
	}
	list, err := d.VMs(ctx)
	if err != nil || len(list) != 3 || list[0].Name != "vm1" || list[2].Name != "vm3" {
		t.Fatal(list, err)
	}
	if b := list[1]; b.ID != "2" || b.Name != "vm2" || b.Status != api.StatusBroken || b.Error == nil || b.Error.Kind != api.KindInternal {
		t.Errorf("%+v", b)
	}
	images, err := d.Images(ctx)
	if err != nil || len(images) != 2 {
		t.Error(images, err)
	}
	kernels, err := d.Kernels(ctx)
	if err != nil || len(kernels) != 2 {
		t.Error(kernels, err)
	}
	ops, err := d.Operations(ctx)
	if err != nil || len(ops) != 3 {
		t.Fatal(ops, err)
	}
	if o := ops[1]; o.ID != "2" || o.Kind != "vm.create" || o.Target != "2" || o.Status != api.OperationFailed || o.Error == nil || o.FinishedAt == nil {
		t.Errorf("%+v", o)
	}
	for what, get := range map[string]func(context.Context, string) error{
		"vm2":     func(ctx context.Context, n string) error { _, err := d.VMByName(ctx, n); return err },
		"image2":  func(ctx context.Context, n string) error { _, err := d.ImageByName(ctx, n); return err },
		"kernel2": func(ctx context.Context, n string) error { _, err := d.KernelByName(ctx, n); return err },
	} {
		err := get(ctx, what)
		wantKind(t, err, api.KindInternal) // and not not-found
	}
	wantKind(t, d.InsertVM(ctx, VM{ID: "9", Name: "vm2"}), api.KindExists)
	_, err = d.UpdateVM(ctx, "2", func(*VM) error { t.Error("called"); return nil })
	wantKind(t, err, api.KindInternal)
	err = d.Check(ctx)
	for _, noun := range []string{"VM 2", "image 2", "kernel 2", "operation 2"} {
		if err == nil || !strings.Contains(err.Error(), noun) {
			t.Errorf("the check does not name %s: %v", noun, err)
		}
	}
	if err := d.DeleteVM(ctx, "2"); err != nil {
		t.Error(err)
	}
}

func TestAFullDiskIsSaidAndLosesNothing(t *testing.T) {
	t.Parallel()
	d, ctx := temp(t), t.Context()
	if err := d.InsertVM(ctx, VM{ID: "1", Name: "a", CreatedAt: day}); err != nil {
		t.Fatal(err)
	}
	var pages int
	if err := d.write.QueryRow("PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	if _, err := d.write.Exec(fmt.Sprintf("PRAGMA max_page_count=%d", pages)); err != nil {
		t.Fatal(err)
	}
	big := VM{ID: "2", Name: "b", CreatedAt: day, Labels: map[string]string{"x": strings.Repeat("y", 4*roomBytes)}}
	err := d.InsertVM(ctx, big)
	wantKind(t, err, api.KindNoSpace)
	if api.AsError(err).Hint == "" {
		t.Errorf("no hint: %v", err)
	}
	list, err := d.VMs(ctx)
	if err != nil || len(list) != 1 {
		t.Error(list, err)
	}
	if _, err := d.write.Exec("PRAGMA max_page_count=100000"); err != nil {
		t.Fatal(err)
	}
	if err := d.InsertVM(ctx, big); err != nil { // room again
		t.Error(err)
	}
}
