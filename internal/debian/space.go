package debian

import (
	"path/filepath"

	units "github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
)

// Need is how much is to be written where, in bytes.
type Need struct {
	Dir   string // it, or the nearest folder above that is there
	Bytes int64
}

// CheckSpace looks whether there is room for all needs, those on one file
// system taken together. An error is of kind no-space and says what is needed
// and what is there.
func CheckSpace(what string, needs ...Need) error {
	type disk struct {
		dir        string
		need, free int64
	}
	disks := map[unix.Fsid]*disk{}
	for _, n := range needs {
		dir := n.Dir
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		for ; err != nil && dir != "/" && dir != "."; err = unix.Statfs(dir, &st) {
			dir = filepath.Dir(dir)
		}
		if err != nil {
			return api.Errorf(api.KindInternal, "cannot see how much room %s has: %w", n.Dir, err)
		}
		d := disks[st.Fsid]
		if d == nil {
			d = &disk{dir: dir, free: int64(st.Bavail) * st.Bsize}
			disks[st.Fsid] = d
		}
		d.need += n.Bytes
	}
	for id, d := range disks {
		if d.free < d.need {
			// The folder itself is often one that goes with the failure.
			where := d.dir
			var up unix.Statfs_t
			if above := filepath.Dir(where); unix.Statfs(above, &up) == nil && up.Fsid == id {
				where = above
			}
			return api.Errorf(api.KindNoSpace, "cannot %s: it needs %s on the disk of %s, which has %s free",
				what, units.BytesSize(float64(d.need)), where, units.BytesSize(float64(d.free))).WithHint("df -h %s", where)
		}
	}
	return nil
}
