package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/bangervm/banger/api"
)

var rules = []Rule{
	{Name: "disk", MaxBytes: 64 << 20},
	{Name: "seed", Group: "seed", MaxBytes: 1 << 20},
	{Name: "extra/a", Group: "extra", MaxBytes: 1 << 20},
	{Name: "extra/b", Group: "extra", MaxBytes: 1 << 20},
}

// holed is content with zeros in every place they matter.
func holed() []byte {
	b := make([]byte, 9<<20+123)
	rnd := rand.NewChaCha8([32]byte{1})
	for _, at := range []int{0, 3 * blockSize, 5<<20 + 17, 9<<20 + 100} {
		_, _ = rnd.Read(b[at:min(at+5000, len(b))])
	}
	return b
}

func put(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func full(t *testing.T, dir string) []File {
	t.Helper()
	return []File{
		{"disk", put(t, filepath.Join(dir, "x"), holed())},
		{"seed", put(t, filepath.Join(dir, "y"), nil)},
		{"extra/a", put(t, filepath.Join(dir, "z"), []byte("a"))},
		{"extra/b", put(t, filepath.Join(dir, "w"), bytes.Repeat([]byte("b"), 5000))},
	}
}

func write(t *testing.T, files []File) ([]byte, Info) {
	t.Helper()
	var b bytes.Buffer
	info, err := Write(t.Context(), &b, "image", map[string]string{"name": "app"}, files, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), info
}

func read(ctx context.Context, b []byte, dir string) (Info, error) {
	return Read(ctx, bytes.NewReader(b), dir, Options{Kind: "image", Rules: rules})
}

// tree lists what is in a folder, with its content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if d.IsDir() {
			got[rel+"/"] = ""
			return nil
		}
		b, err := os.ReadFile(path)
		got[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	t.Parallel()
	files := full(t, t.TempDir())
	b, wrote := write(t, files)
	dir := t.TempDir()
	got, err := read(t.Context(), b, dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(wrote, got); d != "" {
		t.Error(d)
	}
	peeked, err := Peek(t.Context(), bytes.NewReader(b), Options{Kind: "image", Rules: rules})
	if d := cmp.Diff(wrote.Manifest, peeked); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	if _, err := Peek(t.Context(), bytes.NewReader(b), Options{Kind: "cake", Rules: rules}); api.KindOf(err) != api.KindInvalid {
		t.Errorf("another kind: %v", err)
	}
	sum := sha256.Sum256(b)
	if wrote.Digest != "sha256:"+hex.EncodeToString(sum[:]) || wrote.SizeBytes != int64(len(b)) {
		t.Errorf("said %s, %d bytes; it is %x, %d bytes", wrote.Digest, wrote.SizeBytes, sum, len(b))
	}
	want := map[string]string{"disk": string(holed()), "seed": "", "extra/": "", "extra/a": "a", "extra/b": strings.Repeat("b", 5000)}
	if d := cmp.Diff(want, tree(t, dir)); d != "" {
		t.Error("the files differ")
	}
	if string(got.Manifest.Content) != `{"name":"app"}` || !got.Manifest.Has("seed") || got.Manifest.Has("other") {
		t.Errorf("manifest: %+v", got.Manifest)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(dir, "disk"), &st); err != nil {
		t.Fatal(err)
	}
	data := got.Manifest.Members[0].DataBytes
	if data >= 100_000 || st.Blocks*512 > data+64<<10 {
		t.Errorf("disk takes %d bytes for %d of data in %d", st.Blocks*512, data, st.Size)
	}
	if len(b) > 40_000 {
		t.Errorf("the bundle has %d bytes: zeros do not compress", len(b))
	}
}

func TestSameContentSameBytes(t *testing.T) {
	t.Parallel()
	first, _ := write(t, full(t, t.TempDir()))
	dir := t.TempDir()
	files := full(t, dir)
	for i, f := range files {
		if err := os.Chmod(f.Path, 0o400); err != nil {
			t.Fatal(err)
		}
		old := time.Date(1999, 1, i+1, 0, 0, 0, 0, time.UTC)
		if err := os.Chtimes(f.Path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	// The same content with real holes.
	sparse := filepath.Join(dir, "sparse")
	f, err := os.Create(sparse)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range slices.Collect(slices.Chunk(holed(), blockSize)) {
		if isZero(b) {
			continue
		}
		if _, err := f.WriteAt(b, int64(i*blockSize)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(int64(len(holed()))), f.Close()); err != nil {
		t.Fatal(err)
	}
	files[0].Path = sparse
	again, _ := write(t, files)
	if !bytes.Equal(first, again) {
		t.Error("the same content gave other bytes")
	}
	files[2].Path = put(t, filepath.Join(dir, "other"), []byte("A"))
	if other, _ := write(t, files); bytes.Equal(first, other) {
		t.Error("other content gave the same bytes")
	}
}

// The format is an ordinary archive: GNU tar and zstd read ours, and Read takes
// theirs.
func TestOtherToolsReadAndMakeThem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, wrote := write(t, full(t, dir))
	put(t, filepath.Join(dir, "app.tar.zst"), b)
	sh := exec.CommandContext(t.Context(), "sh", "-c", `set -e
		mkdir out && zstd -dqc app.tar.zst | tar -x -C out
		cd out && tar -c --format=ustar -f ../again.tar manifest.json disk seed extra/a extra/b
		zstd -q -19 ../again.tar`)
	sh.Dir = dir
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := tree(t, filepath.Join(dir, "out"))
	delete(got, manifestName)
	want := map[string]string{"disk": string(holed()), "seed": "", "extra/": "", "extra/a": "a", "extra/b": strings.Repeat("b", 5000)}
	if d := cmp.Diff(want, got); d != "" {
		t.Error("tar unpacks something else")
	}
	again, err := os.ReadFile(filepath.Join(dir, "again.tar.zst"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := read(t.Context(), again, t.TempDir())
	if err != nil || info.Digest == wrote.Digest {
		t.Errorf("theirs: %s, %v", info.Digest, err)
	}
	if d := cmp.Diff(wrote.Manifest, info.Manifest); d != "" {
		t.Error(d)
	}
}

func TestOptionalMembers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := full(t, dir)
	for name, c := range map[string]struct {
		files []File
		bad   string
	}{
		"the least":           {files[:1], ""},
		"without the seed":    {[]File{files[0], files[2], files[3]}, ""},
		"without the disk":    {files[1:], `"disk" is missing`},
		"half a group":        {files[:3], `"extra/b" is missing`},
		"in another order":    {[]File{files[0], files[3], files[2]}, "does not belong"},
		"twice":               {[]File{files[0], files[0]}, "does not belong"},
		"one more":            {append(slices.Clone(files), File{"more", files[0].Path}), "does not belong"},
		"one with a bad name": {append(slices.Clone(files[:1]), File{"../evil", files[0].Path}), "does not belong"},
		"nothing":             {nil, `"disk" is missing`},
	} {
		b, _ := write(t, c.files)
		out := t.TempDir()
		_, err := read(t.Context(), b, out)
		if c.bad == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%s: %v", name, err)
		}
		if left := tree(t, out); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
}

func TestDiscardedMembersAreVerifiedOnly(t *testing.T) {
	t.Parallel()
	b, _ := write(t, full(t, t.TempDir()))
	some := slices.Clone(rules)
	some[0].Discard, some[1].Discard = true, true
	dir := t.TempDir()
	if _, err := Read(t.Context(), bytes.NewReader(b), dir, Options{Kind: "image", Rules: some}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{"extra/": "", "extra/a": "a", "extra/b": strings.Repeat("b", 5000)}, tree(t, dir)); d != "" {
		t.Error(d)
	}
}

// piece is a member of a hand-made archive.
type piece struct {
	h    tar.Header
	body string
}

func member(name, body string) piece {
	return piece{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body)), Format: tar.FormatUSTAR}, body}
}

func describe(name, body string) Member {
	sum := sha256.Sum256([]byte(body))
	var data int64
	for b := range slices.Chunk([]byte(body), blockSize) {
		if !isZero(b) {
			data += int64(len(b))
		}
	}
	return Member{Name: name, SizeBytes: int64(len(body)), DataBytes: data, Digest: "sha256:" + hex.EncodeToString(sum[:])}
}

func manifest(change func(*Manifest), members ...Member) piece {
	m := Manifest{Version: Version, Kind: "image", Content: json.RawMessage(`{}`), Members: members}
	if change != nil {
		change(&m)
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return member(manifestName, string(b))
}

func archive(t testing.TB, pieces ...piece) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, p := range pieces {
		if err := tw.WriteHeader(&p.h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, p.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func compress(t testing.TB, b []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	var out bytes.Buffer
	zw, err := zstd.NewWriter(&out, opts...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := zw.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestHostileBundles(t *testing.T) {
	t.Parallel()
	disk := describe("disk", "hello")
	link := func(typ byte) piece {
		p := member("disk", "")
		p.h.Typeflag, p.h.Linkname = typ, "/etc/passwd"
		return p
	}
	attr := member("disk", "hello")
	attr.h.Format, attr.h.PAXRecords = tar.FormatPAX, map[string]string{"SCHILY.xattr.user.x": "y"}
	gnu := member("disk", "hello")
	gnu.h.Format = tar.FormatGNU
	bad := func(change func(*Member)) []byte {
		m := disk
		change(&m)
		return compress(t, archive(t, manifest(nil, m), member("disk", "hello")))
	}
	good := archive(t, manifest(nil, disk), member("disk", "hello"))
	cases := map[string]struct {
		b    []byte
		says string
	}{
		"nothing":                       {nil, "too early"},
		"no archive":                    {[]byte("hello, world, this is no archive"), ""},
		"an empty archive":              {compress(t, archive(t)), "too early"},
		"compressed text":               {compress(t, []byte(strings.Repeat("hello", 500))), ""},
		"another first member":          {compress(t, archive(t, member("disk", "hello"), manifest(nil, disk))), "first member"},
		"no manifest but a folder":      {compress(t, archive(t, piece{h: tar.Header{Typeflag: tar.TypeDir, Name: "manifest.json"}})), "not a regular file"},
		"a manifest of text":            {compress(t, archive(t, member(manifestName, "hello"))), "corrupt"},
		"a manifest and more":           {compress(t, archive(t, member(manifestName, manifest(nil, disk).body+"{}"), member("disk", "hello"))), "corrupt"},
		"a manifest with more keys":     {compress(t, archive(t, member(manifestName, `{"bundle_version":1,"kind":"image","run":"rm"}`))), "unknown field"},
		"a newer manifest":              {compress(t, archive(t, manifest(func(m *Manifest) { m.Version = 2 }))), "newer banger"},
		"no version":                    {compress(t, archive(t, manifest(func(m *Manifest) { m.Version = 0 }))), "bundle_version"},
		"another kind":                  {compress(t, archive(t, manifest(func(m *Manifest) { m.Kind = "cake" }, disk))), `"cake"`},
		"too large a manifest":          {compress(t, archive(t, member(manifestName, strings.Repeat(" ", maxManifest+1)))), "more than"},
		"many members":                  {compress(t, archive(t, manifest(nil, make([]Member, maxMembers+1)...))), "more than 64"},
		"a member missing":              {compress(t, archive(t, manifest(nil, disk))), "too early"},
		"a member too many":             {compress(t, archive(t, manifest(nil, disk), member("disk", "hello"), member("seed", ""))), "not in its manifest"},
		"a member twice":                {compress(t, archive(t, manifest(nil, disk), member("disk", "hello"), member("disk", "hello"))), "not in its manifest"},
		"a member under another name":   {compress(t, archive(t, manifest(nil, disk), member("../disk", "hello"))), "where its manifest says"},
		"a member with a dot":           {compress(t, archive(t, manifest(nil, disk), member("./disk", "hello"))), "where its manifest says"},
		"a symbolic link":               {compress(t, archive(t, manifest(nil, disk), link(tar.TypeSymlink))), "not a regular file"},
		"a hard link":                   {compress(t, archive(t, manifest(nil, disk), link(tar.TypeLink))), "not a regular file"},
		"a device":                      {compress(t, archive(t, manifest(nil, disk), link(tar.TypeBlock))), "not a regular file"},
		"a fifo":                        {compress(t, archive(t, manifest(nil, disk), link(tar.TypeFifo))), "not a regular file"},
		"attributes":                    {compress(t, archive(t, manifest(nil, disk), attr)), "attribute"},
		"another format":                {compress(t, archive(t, manifest(nil, disk), gnu)), "format"},
		"another size":                  {compress(t, archive(t, manifest(nil, disk), member("disk", "hell"))), "its manifest says 5"},
		"other bytes":                   {compress(t, archive(t, manifest(nil, disk), member("disk", "hallo"))), "digest"},
		"a negative size":               {bad(func(m *Member) { m.SizeBytes = -1 }), "more than"},
		"a huge size":                   {bad(func(m *Member) { m.SizeBytes = 1 << 60 }), "more than"},
		"more data than size":           {bad(func(m *Member) { m.DataBytes = 6 }), "6 bytes of data in 5"},
		"less data than said":           {bad(func(m *Member) { m.DataBytes = 4 }), "more than the 4 bytes of data"},
		"no digest":                     {bad(func(m *Member) { m.Digest = "" }), "no sha256 digest"},
		"a digest in capitals":          {bad(func(m *Member) { m.Digest = strings.ToUpper(m.Digest) }), "no sha256 digest"},
		"something behind the archive":  {compress(t, append(slices.Clone(good), "evil"...)), "follows its last member"},
		"many zeros behind the archive": {compress(t, append(slices.Clone(good), make([]byte, maxTail+1)...)), "follows its last member"},
		"something behind the bundle":   {append(compress(t, good), "evil"...), "follows its end"},
		"a byte behind the bundle":      {append(compress(t, good), 0), "follows its end"},
		"a frame to be skipped behind":  {append(compress(t, good), 0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0), "follows its end"},
		"a frame to be skipped before":  {append([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0}, compress(t, good)...), "not compressed with zstd"},
		"another bundle behind it":      {append(compress(t, good), compress(t, good)...), "follows its end"},
		"cut in the archive":            {compress(t, good[:len(good)-1200]), ""},
		"a window beyond bounds":        {compress(t, slices.Concat(good, make([]byte, 80<<20)), zstd.WithWindowSize(64<<20)), "window"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			_, err := read(t.Context(), c.b, dir)
			if api.KindOf(err) != api.KindInvalid || !strings.HasPrefix(err.Error(), "cannot read bundle: ") || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
			if left := tree(t, dir); len(left) > 0 {
				t.Errorf("left %v", left)
			}
		})
	}
	if _, err := read(t.Context(), compress(t, good), t.TempDir()); err != nil {
		t.Errorf("what all the others were made from: %v", err)
	}
}

// Wherever a bundle is cut or a byte is changed, reading fails and leaves
// nothing.
func TestEveryCutAndChangeIsFound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, _ := write(t, []File{{"disk", put(t, filepath.Join(dir, "x"), []byte(strings.Repeat("hello ", 3000)))}})
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range b {
		if _, err := read(t.Context(), b[:i], out); err == nil {
			t.Errorf("cut after %d of %d bytes: read", i, len(b))
		}
		changed := slices.Clone(b)
		changed[i] ^= 0x08
		if _, err := read(t.Context(), changed, out); err == nil {
			t.Errorf("byte %d changed: read", i)
		}
		if left := tree(t, out); len(left) > 0 {
			t.Fatalf("byte %d: left %v", i, left)
		}
	}
}

// A bundle of a few kilobytes that unpacks to gigabytes of zeros takes no disk,
// and one that unpacks to data is stopped by its own word.
func TestBombs(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 8<<20)
	m := describe("disk", body)
	m.DataBytes = 4096
	dir := t.TempDir()
	b := compress(t, archive(t, manifest(nil, m), member("disk", body)))
	if len(b) > 20_000 {
		t.Fatalf("%d bytes are no bomb", len(b))
	}
	_, err := read(t.Context(), b, dir)
	if api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), "more than the 4096 bytes of data") || len(tree(t, dir)) > 0 {
		t.Errorf("got %v, left %v", err, tree(t, dir))
	}
}

func TestAcceptSeesTheManifestFirst(t *testing.T) {
	t.Parallel()
	b, wrote := write(t, full(t, t.TempDir()))
	dir := t.TempDir()
	mine := api.Errorf(api.KindNoSpace, "mine")
	_, err := Read(t.Context(), bytes.NewReader(b), dir, Options{Kind: "image", Rules: rules, Accept: func(m Manifest) error {
		if d := cmp.Diff(wrote.Manifest, m); d != "" {
			t.Error(d)
		}
		if left := tree(t, dir); len(left) > 0 {
			t.Errorf("there already: %v", left)
		}
		return mine
	}})
	if !errors.Is(err, error(mine)) || len(tree(t, dir)) > 0 {
		t.Errorf("got %v", err)
	}
}

// failing fails after a number of bytes.
type failing struct {
	r   io.Reader
	err error
}

func (f failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if errors.Is(err, io.EOF) {
		err = f.err
	}
	return n, err
}

func TestTheSourcesErrorIsItself(t *testing.T) {
	t.Parallel()
	b, _ := write(t, full(t, t.TempDir()))
	mine := api.Errorf(api.KindUnavailable, "the line is dead")
	for _, n := range []int{0, 10, len(b) / 2, len(b)} {
		dir := t.TempDir()
		_, err := Read(t.Context(), failing{bytes.NewReader(b[:n]), mine}, dir, Options{Kind: "image", Rules: rules})
		if api.KindOf(err) != api.KindUnavailable || len(tree(t, dir)) > 0 {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestCancelledReadLeavesNothing(t *testing.T) {
	t.Parallel()
	b, _ := write(t, full(t, t.TempDir()))
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Read(ctx, bytes.NewReader(b), dir, Options{Kind: "image", Rules: rules, Accept: func(Manifest) error { cancel(); return nil }})
	if api.KindOf(err) != api.KindCancelled || len(tree(t, dir)) > 0 {
		t.Errorf("got %v, left %v", err, tree(t, dir))
	}
}

func TestWhatIsThereIsNotTouched(t *testing.T) {
	t.Parallel()
	b, _ := write(t, full(t, t.TempDir()))
	dir := t.TempDir()
	put(t, filepath.Join(dir, "extra/b"), []byte("mine"))
	if _, err := read(t.Context(), b, dir); err == nil {
		t.Error("a file was overwritten")
	}
	if d := cmp.Diff(map[string]string{"extra/": "", "extra/b": "mine"}, tree(t, dir)); d != "" {
		t.Error(d)
	}
}

func TestWriteErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	x := put(t, filepath.Join(dir, "x"), holed())
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "missing"), dir, filepath.Join(dir, "fifo")} {
		if _, err := Write(t.Context(), io.Discard, "image", 1, []File{{"disk", path}}, nil); err == nil {
			t.Errorf("%s was written", path)
		}
	}
	if _, err := Write(t.Context(), io.Discard, "image", func() {}, nil, nil); err == nil {
		t.Error("a description that is none was written")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Write(ctx, io.Discard, "image", 1, []File{{"disk", x}}, nil); api.KindOf(err) != api.KindCancelled {
		t.Errorf("cancelled: %v", err)
	}
	// The file changes between the two passes.
	_, err := Write(t.Context(), io.Discard, "image", 1, []File{{"disk", x}}, func(done, total int64) {
		if done == total/2 {
			put(t, x, bytes.Repeat([]byte("y"), len(holed())))
		}
	})
	if api.KindOf(err) != api.KindBadState || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("changed: %v", err)
	}
}

func TestProgressCountsBytes(t *testing.T) {
	t.Parallel()
	files := full(t, t.TempDir())
	var last, total int64
	var b bytes.Buffer
	if _, err := Write(t.Context(), &b, "image", 1, files, func(d, n int64) {
		if d < last {
			t.Errorf("%d after %d", d, last)
		}
		last, total = d, n
	}); err != nil {
		t.Fatal(err)
	}
	if last != total || total != 2*int64(len(holed())+5001) {
		t.Errorf("%d of %d", last, total)
	}
	var read int64
	size := int64(b.Len())
	if _, err := Read(t.Context(), &b, t.TempDir(), Options{Kind: "image", Rules: rules, Report: func(n int64) { read = n }}); err != nil || read != size {
		t.Errorf("%d of %d, %v", read, size, err)
	}
}

func TestWriteFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, temp := filepath.Join(dir, "app.tar.zst"), filepath.Join(dir, ".app.tmp")
	text := func(s string, err error) func(io.Writer) (Info, error) {
		return func(w io.Writer) (Info, error) {
			_, _ = io.WriteString(w, s)
			return Info{Digest: s}, err
		}
	}
	check := func(step string, err error, kind api.Kind, want map[string]string) {
		t.Helper()
		if api.KindOf(err) != kind {
			t.Errorf("%s: %v", step, err)
		}
		if d := cmp.Diff(want, tree(t, dir)); d != "" {
			t.Errorf("%s: %s", step, d)
		}
	}
	_, err := WriteFile(t.Context(), path, temp, false, text("half", errors.New("mine")))
	check("it fails", err, api.KindInternal, map[string]string{})
	_, err = WriteFile(t.Context(), path, temp, false, text("half", fmt.Errorf("write: %w", syscall.ENOSPC)))
	check("the disk is full", err, api.KindNoSpace, map[string]string{})
	info, err := WriteFile(t.Context(), path, temp, false, text("one", nil))
	check("it is written", err, "", map[string]string{"app.tar.zst": "one"})
	if info.Digest != "one" {
		t.Errorf("info %+v", info)
	}
	_, err = WriteFile(t.Context(), path, temp, false, text("two", nil))
	check("it is there", err, api.KindExists, map[string]string{"app.tar.zst": "one"})
	_, err = WriteFile(t.Context(), path, temp, true, text("two", nil))
	check("it is replaced", err, "", map[string]string{"app.tar.zst": "two"})
	_, err = WriteFile(t.Context(), path, temp, true, text("half", errors.New("mine")))
	check("replacing fails", err, api.KindInternal, map[string]string{"app.tar.zst": "two"})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err = WriteFile(t.Context(), path, temp, false, func(w io.Writer) (Info, error) {
		put(t, path, []byte("theirs"))
		return text("three", nil)(w)
	})
	check("another comes meanwhile", err, api.KindExists, map[string]string{"app.tar.zst": "theirs"})
	_, err = WriteFile(t.Context(), filepath.Join(dir, "no/where"), filepath.Join(dir, "no/temp"), false, text("x", nil))
	check("no folder", err, api.KindNotFound, map[string]string{"app.tar.zst": "theirs"})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = WriteFile(t.Context(), path, temp, true, text("x", nil)); err == nil {
		t.Error("a fifo was replaced")
	}
}

// FuzzRead feeds bundles, compressed here so that the archive is what varies:
// whatever is in them, an error or exactly the files of the manifest come out.
func FuzzRead(f *testing.F) {
	disk := describe("disk", "hello")
	f.Add(archive(f, manifest(nil, disk), member("disk", "hello")), false)
	f.Add(archive(f, manifest(nil, disk), member("disk", "hello"), member("more", "")), false)
	f.Add(compress(f, archive(f, manifest(nil, disk), member("disk", "hello"))), true)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte, raw bool) {
		if !raw {
			b = compress(t, b)
		}
		out, err := os.MkdirTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(out) }()
		info, err := read(t.Context(), b, out)
		got := tree(t, out)
		if err != nil {
			if len(got) > 0 {
				t.Errorf("%v, left %v", err, got)
			}
			return
		}
		for _, m := range info.Manifest.Members {
			if d := describe(m.Name, got[m.Name]); d != m {
				t.Errorf("%+v became %+v", m, d)
			}
		}
	})
}
