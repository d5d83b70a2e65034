package bundle

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/bangervm/banger/api"
)

// window is how far back the compression looks, in bytes; Read takes up to
// maxWindow.
const (
	window    = 8 << 20
	maxWindow = 32 << 20
)

// File is a member to write.
type File struct {
	Name string // in the bundle
	Path string // of the regular file that holds it
}

// Info is what a bundle turned out to be.
type Info struct {
	Digest    string // sha256:… of the bundle itself
	SizeBytes int64  // of the bundle itself
	Manifest  Manifest
}

// Write writes a bundle of the kind: the description, which must be something
// that encodes to JSON, and the files, in this order. Nothing but the kind, the
// description, names and bytes goes in: no times, owners, modes or paths, so
// the same content gives the same bytes. report, which may be nil, is told of
// bytes of content read, of the sum of both passes over it.
//
// A file that changes meanwhile is an error. What was written to w on an error
// is worthless.
func Write(ctx context.Context, w io.Writer, kind string, content any, files []File, report func(done, total int64)) (Info, error) {
	opened := make([]*os.File, 0, len(files))
	defer func() {
		for _, f := range opened {
			_ = f.Close()
		}
	}()
	var total int64
	for _, f := range files {
		in, err := openRegular(f.Path)
		if err != nil {
			return Info{}, fmt.Errorf("cannot write bundle: %w", err)
		}
		opened = append(opened, in)
		fi, err := in.Stat()
		if err != nil {
			return Info{}, fmt.Errorf("cannot write bundle: %w", err)
		}
		total += 2 * fi.Size()
	}
	counted := newMeter(ctx, report, total)

	m := Manifest{Version: Version, Kind: kind}
	var err error
	if m.Content, err = json.Marshal(content); err != nil {
		return Info{}, fmt.Errorf("cannot write bundle: %w", err)
	}
	for i, f := range files {
		member, err := measure(counted.reader(opened[i]))
		if err != nil {
			return Info{}, fmt.Errorf("cannot read %s: %w", f.Path, err)
		}
		member.Name = f.Name
		m.Members = append(m.Members, member)
	}

	out := &digester{w: w, sum: sha256.New()}
	zw, err := zstd.NewWriter(out, zstd.WithWindowSize(window), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderCRC(true))
	if err != nil {
		return Info{}, err
	}
	err = writeTar(zw, m, files, opened, counted)
	if cerr := zw.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return Info{}, err
	}
	return Info{Digest: digestOf(out.sum), SizeBytes: out.n, Manifest: m}, nil
}

func writeTar(w io.Writer, m Manifest, files []File, opened []*os.File, counted *meter) error {
	tw := tar.NewWriter(w)
	manifest, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	manifest = append(manifest, '\n')
	if err := tw.WriteHeader(header(manifestName, int64(len(manifest)))); err != nil {
		return err
	}
	if _, err := tw.Write(manifest); err != nil {
		return err
	}
	for i, member := range m.Members {
		if err := tw.WriteHeader(header(member.Name, member.SizeBytes)); err != nil {
			return err
		}
		if _, err := opened[i].Seek(0, io.SeekStart); err != nil {
			return err
		}
		sum := sha256.New()
		n, err := io.CopyBuffer(io.MultiWriter(tw, sum), io.LimitReader(counted.reader(opened[i]), member.SizeBytes), make([]byte, 1<<20))
		if err != nil {
			return err
		}
		if n != member.SizeBytes || digestOf(sum) != member.Digest {
			return api.Errorf(api.KindBadState, "cannot write bundle: %s changed while it was read", files[i].Path)
		}
	}
	return tw.Close()
}

// header is a member's header; it says as little as one can.
func header(name string, size int64) *tar.Header {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
	if size >= 8<<30 {
		h.Format = tar.FormatPAX
	}
	return h
}

// WriteFile writes a bundle to a file: first under the name temp, which must be
// on the same file system and not taken, then renamed. Where path is taken, replace says
// whether it is replaced or an error of kind exists. On an error nothing is left.
func WriteFile(ctx context.Context, path, temp string, replace bool, write func(io.Writer) (Info, error)) (info Info, err error) {
	if _, err := os.Lstat(path); err == nil && !replace {
		return Info{}, taken(path)
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return Info{}, fileError("write bundle", path, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(temp)
		}
	}()
	if info, err = write(f); err != nil {
		return Info{}, fileError("write bundle", path, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return Info{}, fileError("write bundle", path, err)
	}
	if ctx.Err() != nil {
		return Info{}, cancelled("write bundle", ctx)
	}
	if err := place(temp, path, replace); err != nil {
		return Info{}, err
	}
	return info, nil
}

func taken(path string) error {
	return api.Errorf(api.KindExists, "cannot write bundle: %s is there already", path).WithHint("ls -l %s", path)
}

// measure reads a file once to say what it is.
func measure(r io.Reader) (Member, error) {
	var m Member
	sum := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		n, err := io.ReadFull(r, buf)
		sum.Write(buf[:n])
		m.SizeBytes += int64(n)
		for at := 0; at < n; at += blockSize {
			if block := buf[at:min(at+blockSize, n)]; !isZero(block) {
				m.DataBytes += int64(len(block))
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			m.Digest = digestOf(sum)
			return m, nil
		}
		if err != nil {
			return Member{}, err
		}
	}
}

// openRegular opens a file that must be regular, without waiting for a fifo's
// other end.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func digestOf(sum hash.Hash) string { return "sha256:" + hex.EncodeToString(sum.Sum(nil)) }

// digester passes bytes on and knows their sum and number.
type digester struct {
	w   io.Writer
	sum hash.Hash
	n   int64
}

func (d *digester) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	d.sum.Write(p[:n])
	d.n += int64(n)
	return n, err
}

// meter counts bytes read and ends reading with the context.
type meter struct {
	ctx         context.Context
	report      func(done, total int64)
	done, total int64
}

func newMeter(ctx context.Context, report func(done, total int64), total int64) *meter {
	return &meter{ctx: ctx, report: report, total: total}
}

func (m *meter) reader(r io.Reader) io.Reader { return meterReader{m, r} }

type meterReader struct {
	*meter
	r io.Reader
}

func (m meterReader) Read(p []byte) (int, error) {
	if m.ctx.Err() != nil {
		return 0, cancelled("work on bundle", m.ctx)
	}
	n, err := m.r.Read(p)
	m.done += int64(n)
	if m.report != nil && n > 0 {
		m.report(m.done, m.total)
	}
	return n, err
}

func cancelled(what string, ctx context.Context) error {
	kind := api.KindCancelled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		kind = api.KindTimeout
	}
	return api.Errorf(kind, "cannot %s: %w", what, context.Cause(ctx))
}
