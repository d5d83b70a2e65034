package layers

import (
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/bangervm/banger/internal/ext4"
	"github.com/bangervm/banger/internal/layers/layerstest"
)

func fromBlobs(blobs []layerstest.Blob) []Layer {
	var list []Layer
	for _, b := range blobs {
		list = append(list, Layer{Name: b.Digest, DiffID: b.DiffID, Size: b.Size, Open: b.Open})
	}
	return list
}

// BenchmarkWrite makes the ext4 file of the image that the figures are about, and
// says what each stage costs.
func BenchmarkWrite(b *testing.B) {
	for _, c := range []layerstest.Compression{layerstest.Gzip, layerstest.Zstd} {
		b.Run(string(c), func(b *testing.B) {
			dir := b.TempDir()
			big := layerstest.Standard()
			blobs, err := layerstest.Layout(dir, "big", c, big.Sources())
			if err != nil {
				b.Fatal(err)
			}
			runtime.GC()
			b.SetBytes(big.Bytes)
			n := 0
			for b.Loop() {
				n++
				path := filepath.Join(dir, "rootfs.ext4")
				before, start := cpu(b), time.Now()
				stats, err := Write(b.Context(), path, ext4.UUID("bench"), fromBlobs(blobs), Limits{}, nil)
				if err != nil {
					b.Fatal(err)
				}
				used := cpu(b) - before
				b.ReportMetric(used.Seconds(), "cpu-s/op")
				b.ReportMetric(time.Since(start).Seconds()/(used.Seconds()/2), "wall/half-cpu")
				b.ReportMetric(stats.Decompress.Seconds(), "decompress-s/op")
				b.ReportMetric(stats.Hash.Seconds(), "hash-s/op")
				b.ReportMetric(stats.Merge.Seconds(), "merge-s/op")
				if err := syscall.Unlink(path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
