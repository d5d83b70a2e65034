package image

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type member struct {
	name, link, data string
	typ              byte
}

func archive(t testing.TB, members []member) []byte {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Typeflag: m.typ, Name: m.name, Linkname: m.link, Size: int64(len(m.data)), Mode: 0o644}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// rewrite passes an archive through and lists what comes out: path → content,
// link or folder.
func rewrite(in []byte, w *rewriter) (map[string]string, error) {
	var out bytes.Buffer
	tw := tar.NewWriter(&out)
	if err := w.copy(tar.NewReader(bytes.NewReader(in)), tw); err != nil {
		return nil, err
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	got := map[string]string{}
	tr := tar.NewReader(&out)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			return nil, err
		}
		got[h.Name] = string(h.Typeflag) + " " + h.Linkname + string(b)
	}
}

func TestRewrite(t *testing.T) {
	t.Parallel()
	in := archive(t, []member{
		{"./", "", "", tar.TypeDir},
		{"./etc/", "", "", tar.TypeDir},
		{"./etc/hosts", "", "the host's", tar.TypeReg},
		{"./etc/resolv.conf", "../run/resolv.conf", "", tar.TypeSymlink},
		{"./etc/apt/apt.conf.d/99mmdebstrap", "", "Acquire::http::Proxy \"http://proxy\";", tar.TypeReg},
		{"./etc/passwd", "", "root", tar.TypeReg},
		{"./bin/a", "", "a", tar.TypeReg},
		{"./bin/b", "./bin/a", "", tar.TypeLink},
		{"./var/lib/dpkg/status", "", "Package: x\nVersion: 1.2\n\n", tar.TypeReg},
	})
	w := newRewriter([]File{{"etc/hosts", "ours"}, {"etc/resolv.conf", "r"}, {"etc/new/file", "n"}}, leftovers[:], time.Unix(1e9, 0))
	got, err := rewrite(in, w)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"./": "5 ", "etc": "5 ", "etc/passwd": "0 root", "bin/a": "0 a", "bin/b": "1 bin/a",
		"var/lib/dpkg/status": "0 Package: x\nVersion: 1.2\n\n",
		"etc/hosts":           "0 ours", "etc/resolv.conf": "0 r", "etc/new/file": "0 n",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"x=1.2"}, sortedPackages(w.packages)); d != "" {
		t.Error(d)
	}
}

func TestRewriteRefuses(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		members []member
		says    string
	}{
		"nothing":            {nil, "empty"},
		"climbing":           {[]member{{"../etc/passwd", "", "x", tar.TypeReg}}, "leaves the archive"},
		"climbing hard link": {[]member{{"x", "../../etc/shadow", "", tar.TypeLink}}, "leaves the archive"},
		"link to nothing":    {[]member{{"x", "y", "", tar.TypeLink}}, "no file before it"},
		"link to a folder":   {[]member{{"y", "", "", tar.TypeDir}, {"x", "y", "", tar.TypeLink}}, "no file before it"},
		"through a link":     {[]member{{"x", "/etc", "", tar.TypeSymlink}, {"x/passwd", "", "p", tar.TypeReg}}, "no folder"},
		"through a file":     {[]member{{"x", "", "f", tar.TypeReg}, {"x/y/z", "", "p", tar.TypeReg}}, "no folder"},
		"twice":              {[]member{{"x", "", "1", tar.TypeReg}, {"./x", "", "2", tar.TypeReg}}, "twice"},
		"folder over a file": {[]member{{"x", "", "1", tar.TypeReg}, {"x", "", "", tar.TypeDir}}, "twice"},
		"our file's folder":  {[]member{{"etc", "/tmp", "", tar.TypeSymlink}}, "no folder"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newRewriter([]File{{"etc/hosts", "ours"}}, nil, time.Unix(0, 0))
			if _, err := rewrite(archive(t, c.members), w); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
}

func FuzzRewrite(f *testing.F) {
	f.Add(archive(f, []member{
		{"./etc/", "", "", tar.TypeDir}, {"./etc/hosts", "", "h", tar.TypeReg}, {"x", "./etc/passwd", "", tar.TypeSymlink},
		{"a", "", "a", tar.TypeReg}, {"b", "a", "", tar.TypeLink}, {"var/lib/dpkg/status", "", "Package: x\nVersion: 1\n", tar.TypeReg},
	}))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := rewrite(b, newRewriter([]File{{"etc/hosts", "ours"}}, leftovers[:], time.Unix(0, 0)))
		if err != nil {
			return
		}
		if got["etc/hosts"] != "0 ours" {
			t.Errorf("etc/hosts is %q", got["etc/hosts"])
		}
		for name := range got {
			if strings.HasPrefix(name, "/") || strings.Contains("/"+name+"/", "/../") {
				t.Errorf("path %q", name)
			}
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"manifest_version":1,"digest":"sha256:00","size_bytes":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := parseManifest(b); err == nil && (m.Digest == "" || m.SizeBytes <= 0 || m.Source == nil) {
			t.Errorf("%+v", m)
		}
	})
}
