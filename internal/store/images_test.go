package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// called lists the images as name=id, a nameless one as =id.
func called(t *testing.T, d *DB) []string {
	t.Helper()
	list, err := d.Images(t.Context())
	must(t, err)
	got := []string{}
	for _, i := range list {
		got = append(got, i.Name+"="+i.ID)
	}
	return got
}

func TestImagesHaveSeveralNames(t *testing.T) {
	t.Parallel()
	d, ctx := temp(t), t.Context()
	publish := func(id, name, ref string, at int) {
		t.Helper()
		must(t, d.PublishImage(ctx, Image{ID: id, Name: name, Reference: ref, Kernel: "k-" + name, CreatedAt: day.Add(time.Duration(at) * time.Second)}, nil))
	}
	publish("a", "one", "r/one", 1)
	publish("a", "two", "r/two", 1)
	publish("b", "three", "r/three", 2)
	if diff := cmp.Diff([]string{"one=a", "two=a", "three=b"}, called(t, d)); diff != "" {
		t.Error(diff)
	}
	two, err := d.ImageByName(ctx, "two")
	if err != nil || two.ID != "a" || two.Name != "two" || two.Reference != "r/two" || two.Kernel != "k-two" || !cmp.Equal(two.Names, []string{"one", "two"}) {
		t.Errorf("%+v %v", two, err)
	}
	byID, err := d.Image(ctx, "a")
	if err != nil || byID.Name != "one" || byID.Reference != "r/one" {
		t.Errorf("%+v %v", byID, err)
	}
	// The name of another: refused, or taken where the caller says so.
	wantKind(t, d.PublishImage(ctx, Image{ID: "c", Name: "two", CreatedAt: day}, nil), api.KindExists)
	no := errors.New("no")
	if err := d.PublishImage(ctx, Image{ID: "c", Name: "two", CreatedAt: day}, func(Image) error { return no }); err != no {
		t.Errorf("the caller's own error came back as %v", err)
	}
	var holder Image
	must(t, d.PublishImage(ctx, Image{ID: "b", Name: "two", CreatedAt: day.Add(2 * time.Second)}, func(h Image) error { holder = h; return nil }))
	if holder.ID != "a" || holder.Name != "two" || holder.Reference != "r/two" {
		t.Errorf("asked about %+v", holder)
	}
	must(t, d.PublishImage(ctx, Image{ID: "b", Name: "one", CreatedAt: day}, func(Image) error { return nil }))
	if diff := cmp.Diff([]string{"=a", "three=b", "two=b", "one=b"}, called(t, d)); diff != "" {
		t.Error(diff)
	}
	if _, err := d.ImageByName(ctx, ""); api.KindOf(err) != api.KindNotFound {
		t.Error(err)
	}
	// No reference means two things.
	wantKind(t, d.PublishImage(ctx, Image{ID: "d", Name: "a", CreatedAt: day}, nil), api.KindExists)
	wantKind(t, d.PublishImage(ctx, Image{ID: "three", Name: "e", CreatedAt: day}, nil), api.KindExists)
}

func TestAnImageGoesWithItsLastName(t *testing.T) {
	t.Parallel()
	d, ctx := temp(t), t.Context()
	for _, name := range []string{"one", "two"} {
		must(t, d.PublishImage(ctx, Image{ID: "a", Name: name, CreatedAt: day}, nil))
	}
	must(t, d.InsertVM(ctx, VM{ID: "v1", Name: "web", ImageID: "a", ImageName: "one"}))
	_, _, err := d.DeleteImageName(ctx, "one")
	wantKind(t, err, api.KindBadState)
	if e := api.AsError(err); !cmp.Equal(e.Candidates, []string{"web"}) {
		t.Errorf("VMs named: %v", e.Candidates)
	}
	// The name that no VM was made under may go, the last may not.
	if i, gone, err := d.DeleteImageName(ctx, "two"); err != nil || gone || i.ID != "a" {
		t.Errorf("%+v %v %v", i, gone, err)
	}
	must(t, d.PublishImage(ctx, Image{ID: "a", Name: "three", CreatedAt: day}, nil))
	wantKind(t, d.DeleteImage(ctx, "a"), api.KindBadState)
	must(t, d.DeleteVM(ctx, "v1"))
	if _, gone, err := d.DeleteImageName(ctx, "one"); err != nil || gone {
		t.Error(gone, err)
	}
	if i, gone, err := d.DeleteImageName(ctx, "three"); err != nil || !gone || i.ID != "a" {
		t.Errorf("%+v %v %v", i, gone, err)
	}
	if got := called(t, d); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	_, _, err = d.DeleteImageName(ctx, "one")
	wantKind(t, err, api.KindNotFound)
	wantKind(t, d.DeleteImage(ctx, "a"), api.KindNotFound)
	wantKind(t, d.InsertVM(ctx, VM{ID: "v2", Name: "late", ImageID: "a"}), api.KindNotFound)
}

// Of a delete and a create that want the same image, or kernel, one wins.
func TestDeleteAgainstCreateHasOneWinner(t *testing.T) {
	t.Parallel()
	d, ctx := temp(t), t.Context()
	for round := range 50 {
		id := fmt.Sprint("x", round)
		must(t, d.PublishImage(ctx, Image{ID: id, Name: "name" + id, CreatedAt: day}, nil))
		must(t, d.InsertKernel(ctx, Kernel{ID: id, Name: "name" + id, CreatedAt: day}))
		for _, c := range []struct {
			vm     VM
			remove func() error
		}{
			{VM{ID: "i" + id, Name: "i" + id, ImageID: id}, func() error { _, _, err := d.DeleteImageName(ctx, "name"+id); return err }},
			{VM{ID: "k" + id, Name: "k" + id, KernelID: id}, func() error { return d.DeleteKernel(ctx, id) }},
		} {
			var created, deleted error
			var g sync.WaitGroup
			g.Go(func() { created = d.InsertVM(ctx, c.vm) })
			g.Go(func() { deleted = c.remove() })
			g.Wait()
			switch {
			case created == nil && api.KindOf(deleted) == api.KindBadState:
				if !strings.Contains(deleted.Error(), fmt.Sprintf("%q: VMs use it: %s", "name"+id, c.vm.Name)) {
					t.Fatalf("it does not say what people call it: %v", deleted)
				}
			case deleted == nil && api.KindOf(created) == api.KindNotFound:
			default:
				t.Fatalf("round %d: create %v, delete %v", round, created, deleted)
			}
		}
	}
}

func TestAnotherImageOfAVMMustBeThere(t *testing.T) {
	t.Parallel()
	d, ctx := temp(t), t.Context()
	must(t, d.PublishImage(ctx, Image{ID: "a", Name: "one", CreatedAt: day}, nil))
	must(t, d.InsertVM(ctx, VM{ID: "v", Name: "v", ImageID: "a"}))
	_, err := d.UpdateVM(ctx, "v", func(v *VM) error { v.ImageID = "gone"; return nil })
	wantKind(t, err, api.KindNotFound)
	must(t, d.PublishImage(ctx, Image{ID: "b", Name: "two", CreatedAt: day}, nil))
	if _, err := d.UpdateVM(ctx, "v", func(v *VM) error { v.ImageID = "b"; return nil }); err != nil {
		t.Error(err)
	}
	must(t, d.DeleteImage(ctx, "a"))
	wantKind(t, d.DeleteImage(ctx, "b"), api.KindBadState)
}

func TestKernelNamesPass(t *testing.T) {
	t.Parallel()
	d, ctx := temp(t), t.Context()
	must(t, d.PublishKernel(ctx, Kernel{ID: "a", Name: "k", CreatedAt: day}, nil))
	wantKind(t, d.PublishKernel(ctx, Kernel{ID: "b", Name: "k", CreatedAt: day}, nil), api.KindExists)
	must(t, d.PublishKernel(ctx, Kernel{ID: "b", Name: "k", CreatedAt: day}, func(h Kernel) error {
		if h.ID != "a" {
			t.Errorf("asked about %+v", h)
		}
		return nil
	}))
	k, err := d.KernelByName(ctx, "k")
	old, oerr := d.Kernel(ctx, "a")
	if err != nil || oerr != nil || k.ID != "b" || old.Name != "" {
		t.Errorf("%+v %+v %v %v", k, old, err, oerr)
	}
	must(t, d.PublishKernel(ctx, Kernel{ID: "b", Name: "k", Version: "2", CreatedAt: day}, nil)) // the same again
}

// A store of the first schema keeps its images, names and VMs, also where a
// record is damaged.
func TestTheFirstSchemaIsBroughtUpToDate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "banger.db")
	db, err := sql.Open("sqlite", dsn(path, "immediate", pragmas...))
	must(t, err)
	for _, q := range []string{
		migrations[0], fmt.Sprintf("PRAGMA application_id=%d", applicationID), "PRAGMA user_version=1",
		`INSERT INTO images VALUES ('a','debian',1,'{"id":"a","name":"debian","digest":"sha256:a","reference":"debian","kernel":"kern"}')`,
		`INSERT INTO images VALUES ('b',NULL,2,'{"id":"b","name":"","digest":"sha256:b","reference":"debian","kernel":"kern"}')`,
		`INSERT INTO images VALUES ('c','broken',3,'{"id":')`,
		`INSERT INTO kernels VALUES ('k','kern',1,'{"id":"k","name":"kern"}')`,
		`INSERT INTO vms VALUES ('v','web',NULL,1,'{"id":"v","name":"web","image_id":"b","kernel_id":"k"}')`,
		`INSERT INTO vms VALUES ('w','bad',NULL,2,'{"id":')`,
	} {
		if _, err := db.ExecContext(context.Background(), q); err != nil {
			t.Fatal(err)
		}
	}
	must(t, db.Close())
	d := open(t, path)
	ctx := t.Context()
	if diff := cmp.Diff([]string{"debian=a", "=b"}, called(t, d)); diff != "" {
		t.Error(diff)
	}
	i, err := d.ImageByName(ctx, "debian")
	if err != nil || i.Kernel != "kern" || i.Reference != "debian" || i.Digest != "sha256:a" {
		t.Errorf("%+v %v", i, err)
	}
	_, err = d.ImageByName(ctx, "broken")
	wantKind(t, err, api.KindInternal)
	wantKind(t, d.DeleteImage(ctx, "b"), api.KindBadState)
	wantKind(t, d.DeleteKernel(ctx, "k"), api.KindBadState)
	if _, gone, err := d.DeleteImageName(ctx, "broken"); err != nil || !gone {
		t.Error(gone, err)
	}
}
