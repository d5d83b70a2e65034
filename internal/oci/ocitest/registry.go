package ocitest

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/bcrypt"
)

// Registry is a running registry. It ends with the test.
type Registry struct {
	Host           string // 127.0.0.1:PORT
	CA             string // the file of its certificate's CA; empty: plain HTTP
	User, Password string // empty: everybody may
	Dir            string // where it keeps what is pushed

	transport *http.Transport
}

// Option changes how a registry is started.
type Option func(*setup)

type setup struct {
	tls, tokens    bool
	user, password string
}

// WithTLS gives it a certificate of a CA that nobody knows.
func WithTLS() Option { return func(s *setup) { s.tls = true } }

// WithLogin lets in nobody else.
func WithLogin(user, password string) Option {
	return func(s *setup) { s.user, s.password = user, password }
}

// WithTokens lets in nobody else either, but by way of a server for tokens, as
// Docker's own registry does. Without a user everybody gets one.
func WithTokens(user, password string) Option {
	return func(s *setup) { s.tokens, s.user, s.password = true, user, password }
}

// Start starts docker-registry on a free port of loopback, with nothing in it.
func Start(t testing.TB, options ...Option) *Registry {
	t.Helper()
	var s setup
	for _, o := range options {
		o(&s)
	}
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Fatalf("the tests need docker-registry, Debian's package of that name (scripts/deps test installs it): %v", err)
	}
	dir := t.TempDir()
	r := &Registry{User: s.user, Password: s.password, Dir: filepath.Join(dir, "data")}
	r.transport = http.DefaultTransport.(*http.Transport).Clone()
	conf := fmt.Sprintf("version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\n", r.Dir)
	switch {
	case s.tokens:
		conf += startTokens(t, dir, s.user, s.password)
	case s.user != "":
		hash, err := bcrypt.GenerateFromPassword([]byte(s.password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "htpasswd")
		write(t, file, []byte(s.user+":"+string(hash)+"\n"))
		conf += fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s}}\n", file)
	}
	listen := "http: {addr: '127.0.0.1:0', secret: test"
	if s.tls {
		ca, cert, key := certificates(t)
		r.CA = filepath.Join(dir, "ca.pem")
		write(t, r.CA, ca)
		write(t, filepath.Join(dir, "cert.pem"), cert)
		write(t, filepath.Join(dir, "key.pem"), key)
		listen += fmt.Sprintf(", tls: {certificate: %s/cert.pem, key: %s/key.pem}", dir, dir)
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(ca)
		r.transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	conf += listen + "}\n"
	file := filepath.Join(dir, "config.yml")
	write(t, file, []byte(conf))
	r.Host = run(t, program, "serve", file)
	return r
}

// run starts the registry and gives the address it says that it listens on.
func run(t testing.TB, program string, args ...string) string {
	cmd := exec.Command(program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "OTEL_TRACES_EXPORTER=none"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		listening := regexp.MustCompile(`listening on ([0-9.:]+)`)
		var said bytes.Buffer
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				address <- m[1]
				_, _ = io.Copy(io.Discard, out)
				return
			}
			fmt.Fprintln(&said, lines.Text())
		}
		address <- "it did not start:\n" + said.String()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		_ = cmd.Wait()
	})
	at := <-address
	if _, _, err := net.SplitHostPort(at); err != nil {
		t.Fatalf("docker-registry: %s", at)
	}
	return at
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// certificates makes a CA and a certificate of it for loopback, in PEM form.
func certificates(t testing.TB) (ca, cert, key []byte) {
	t.Helper()
	fatal := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(err)
	caTemplate := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "banger test CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, caTemplate, caTemplate, &caKey.PublicKey, caKey)
	fatal(err)
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "registry"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost", "registry.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, caTemplate, &serverKey.PublicKey, caKey)
	fatal(err)
	keyDER, err := x509.MarshalECPrivateKey(serverKey)
	fatal(err)
	block := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	return block("CERTIFICATE", caDER), block("CERTIFICATE", der), block("EC PRIVATE KEY", keyDER)
}

// Ref gives the full reference of something in the registry: team/app:v1.
func (r *Registry) Ref(what string) string { return r.Host + "/" + what }

func (r *Registry) options() []remote.Option {
	auth := authn.Anonymous
	if r.User != "" {
		auth = authn.FromConfig(authn.AuthConfig{Username: r.User, Password: r.Password})
	}
	return []remote.Option{remote.WithTransport(r.transport), remote.WithAuth(auth)}
}

func (r *Registry) parse(t testing.TB, what string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(r.Ref(what))
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// Push puts an image there and gives the digest of its manifest.
func (r *Registry) Push(t testing.TB, what string, image v1.Image) string {
	t.Helper()
	if err := remote.Write(r.parse(t, what), image, r.options()...); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// PushIndex puts an image of several platforms there and gives the digest of its
// index.
func (r *Registry) PushIndex(t testing.TB, what string, index v1.ImageIndex) string {
	t.Helper()
	if err := remote.WriteIndex(r.parse(t, what), index, r.options()...); err != nil {
		t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// raw is a manifest of any content.
type raw struct {
	body []byte
	kind types.MediaType
}

func (r raw) RawManifest() ([]byte, error)        { return r.body, nil }
func (r raw) MediaType() (types.MediaType, error) { return r.kind, nil }

// PushManifest puts a manifest of any content there, as far as the registry
// takes it.
func (r *Registry) PushManifest(t testing.TB, what, mediaType, body string) {
	t.Helper()
	if err := remote.Put(r.parse(t, what), raw{[]byte(body), types.MediaType(mediaType)}, r.options()...); err != nil {
		t.Fatal(err)
	}
}

// Delete takes the manifest with the digest away.
func (r *Registry) Delete(t testing.TB, repository, digest string) {
	t.Helper()
	if err := remote.Delete(r.parse(t, repository+"@"+digest), r.options()...); err != nil {
		t.Fatal(err)
	}
}

// BlobFile is where the registry keeps a blob, for tests that damage it.
func (r *Registry) BlobFile(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return filepath.Join(r.Dir, "docker/registry/v2/blobs/sha256", hex[:2], hex, "data")
}
