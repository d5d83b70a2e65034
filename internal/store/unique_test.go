package store

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bangervm/banger/api"
	"github.com/google/go-cmp/cmp"
)

func TestOnlyExactNamesAndIDsAreTaken(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		id, name, request string
		want              api.Kind
	}{
		"a prefix of a name and an id": {"1", "longname", "", ""},
		"an extension of a name":       {"2", "longname-vm-sandbox", "", ""},
		"a sibling":                    {"3", "longname-sandbox", "", ""},
		"an id that extends an id":     {"longname-id2", "x", "", ""},
		"the same name":                {"4", "longname-vm", "", api.KindExists},
		"the same id":                  {"longname-id", "y", "", api.KindExists},
		"a name that is an id":         {"5", "longname-id", "", api.KindExists},
		"an id that is a name":         {"longname-vm", "z", "", api.KindExists},
		"a new request":                {"6", "v", "r2", ""},
		"the same request":             {"7", "w", "r1", api.KindExists},
		"its own id as name":           {"same", "same", "", ""},
		"no id":                        {"", "u", "", api.KindInternal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := temp(t)
			if err := d.InsertVM(t.Context(), VM{ID: "longname-id", Name: "longname-vm", RequestID: "r1"}); err != nil {
				t.Fatal(err)
			}
			wantKind(t, d.InsertVM(t.Context(), VM{ID: tc.id, Name: tc.name, RequestID: tc.request}), tc.want)
			if tc.request != "" || tc.id == "" || tc.id == "longname-id" {
				return
			}
			// A rename obeys the same rules; ids are not renamed.
			if err := d.InsertVM(t.Context(), VM{ID: "other", Name: "other"}); err != nil {
				t.Fatal(err)
			}
			if tc.want == "" {
				if err := d.DeleteVM(t.Context(), tc.id); err != nil {
					t.Fatal(err)
				}
			}
			if tc.id == "longname-vm" {
				return
			}
			_, err := d.UpdateVM(t.Context(), "other", func(v *VM) error { v.Name = tc.name; return nil })
			wantKind(t, err, tc.want)
		})
	}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	d, ctx := temp(t), t.Context()
	before := VM{ID: "1", Name: "a", CreatedAt: day}
	if err := d.InsertVM(ctx, before); err != nil {
		t.Fatal(err)
	}
	if _, err := d.UpdateVM(ctx, "1", func(v *VM) error { v.Name = "b"; return io.ErrUnexpectedEOF }); err != io.ErrUnexpectedEOF {
		t.Errorf("the error of the function came back as %v", err)
	}
	_, err := d.UpdateVM(ctx, "1", func(v *VM) error { v.ID = "2"; return nil })
	wantKind(t, err, api.KindInternal)
	_, err = d.UpdateVM(ctx, "nobody", func(*VM) error { return errors.New("called") })
	wantKind(t, err, api.KindNotFound)
	got, err := d.VM(ctx, "1")
	if diff := cmp.Diff(before, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	got, err = d.UpdateVM(ctx, "1", func(v *VM) error { v.Status = api.StatusRunning; return nil })
	if err != nil || got.Status != api.StatusRunning {
		t.Error(got, err)
	}
}

func TestConcurrentWriters(t *testing.T) {
	t.Parallel()
	d, ctx := temp(t), t.Context()
	if err := d.InsertVM(ctx, VM{ID: "counter", Name: "counter"}); err != nil {
		t.Fatal(err)
	}
	const n = 20
	var won atomic.Int32
	var g sync.WaitGroup
	for i := range n {
		g.Go(func() {
			err := d.InsertVM(ctx, VM{ID: fmt.Sprint("id", i), Name: "one"})
			if err == nil {
				won.Add(1)
			} else if api.KindOf(err) != api.KindExists {
				t.Error(err)
			}
		})
		g.Go(func() {
			if _, err := d.UpdateVM(ctx, "counter", func(v *VM) error { v.VCPUs++; return nil }); err != nil {
				t.Error(err)
			}
		})
		g.Go(func() {
			if _, err := d.AppendEvent(ctx, api.Event{Time: day, Kind: "x"}); err != nil {
				t.Error(err)
			}
		})
		g.Go(func() {
			if _, err := d.VMs(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	v, err := d.VM(ctx, "counter")
	if err != nil || v.VCPUs != n || won.Load() != 1 {
		t.Errorf("%d updates of %d, %d winners, %v", v.VCPUs, n, won.Load(), err)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	d, ctx := temp(t), t.Context()
	if last, err := d.LastEvent(ctx); last != 0 || err != nil {
		t.Error(last, err)
	}
	for i := range 10 {
		id, err := d.AppendEvent(ctx, api.Event{Time: day, Kind: fmt.Sprint("k", i), Target: "t", Data: map[string]string{"a": "b"}})
		if err != nil || id != int64(i+1) {
			t.Fatal(id, err)
		}
	}
	idsAfter := func(since int64, limit int) (ids []int64) {
		t.Helper()
		list, err := d.Events(ctx, since, limit)
		if err != nil || list == nil {
			t.Fatal(list, err)
		}
		for _, e := range list {
			ids = append(ids, e.ID)
		}
		return ids
	}
	for _, tc := range []struct {
		since int64
		limit int
		want  []int64
	}{
		{0, 3, []int64{1, 2, 3}},
		{7, 0, []int64{8, 9, 10}},
		{9, 5, []int64{10}},
		{10, 5, nil},
		{99, 5, nil},
		{-5, 1, []int64{1}},
	} {
		if diff := cmp.Diff(tc.want, idsAfter(tc.since, tc.limit)); diff != "" {
			t.Errorf("since %d limit %d: %s", tc.since, tc.limit, diff)
		}
	}
	one, err := d.Events(ctx, 9, 1)
	if diff := cmp.Diff([]api.Event{{ID: 10, Time: day, Kind: "k9", Target: "t", Data: map[string]string{"a": "b"}}}, one); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for keep, want := range map[int][]int64{20: {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}} {
		if err := d.TrimEvents(ctx, keep); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, idsAfter(0, 0)); diff != "" {
			t.Errorf("keep %d: %s", keep, diff)
		}
	}
	for _, keep := range []int{3, 0} {
		if err := d.TrimEvents(ctx, keep); err != nil {
			t.Fatal(err)
		}
		if got := idsAfter(0, 0); len(got) != keep {
			t.Errorf("keep %d: %v", keep, got)
		}
	}
	if id, err := d.AppendEvent(ctx, api.Event{Time: day}); id != 11 || err != nil {
		t.Errorf("an id was given twice: %d %v", id, err)
	}
	if last, err := d.LastEvent(ctx); last != 11 || err != nil {
		t.Error(last, err)
	}
}

func TestAClosedStoreIsUnavailable(t *testing.T) {
	t.Parallel()
	d, ctx := temp(t), t.Context()
	for range 2 {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	wantKind(t, d.InsertVM(ctx, VM{ID: "1", Name: "a"}), api.KindUnavailable)
	_, err := d.VMs(ctx)
	wantKind(t, err, api.KindUnavailable)
}
