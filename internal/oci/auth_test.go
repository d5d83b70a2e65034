package oci

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/oci/ocitest"
)

// The helpers are found in PATH, which is the process's: no parallel tests.
func TestPrivateRegistries(t *testing.T) {
	bin := t.TempDir()
	helper := func(name, script string) {
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	helper("works", `read host; echo "$1 $host" >>`+bin+`/asked; echo '{"ServerURL":"'"$host"'","Username":"alice","Secret":"s3cret"}'`)
	helper("empty", "echo 'credentials not found in native keychain'; exit 1\n")
	helper("fails", "echo 'the keyring is locked' >&2; echo 'locked: dbus'; exit 3\n")
	helper("babbles", "echo no json\n")
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))

	layer := ocitest.Gzip(ocitest.Tar(t, ocitest.File("f", "private")))
	for kind, registry := range map[string]*ocitest.Registry{
		"htpasswd": ocitest.Start(t, ocitest.WithLogin("alice", "s3cret")),
		"tokens":   ocitest.Start(t, ocitest.WithTokens("alice", "s3cret")),
		"tls":      ocitest.Start(t, ocitest.WithLogin("alice", "s3cret"), ocitest.WithTLS()),
	} {
		registry.Push(t, "team/app:1", ocitest.Image(t, v1.Config{}, layer))
		auth := func(password string) string { return base64.StdEncoding.EncodeToString([]byte("alice:" + password)) }
		host := registry.Host
		for name, tc := range map[string]struct {
			config string
			kind   api.Kind // empty: it works
			says   string
		}{
			"no configuration":             {"", api.KindDenied, "wants a login"},
			"a login":                      {fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, auth("s3cret")), "", ""},
			"a login of an old file":       {fmt.Sprintf(`{"auths":{"https://%s/v1/":{"auth":%q}}}`, host, auth("s3cret")), "", ""},
			"a login for the repository":   {fmt.Sprintf(`{"auths":{"%s/team/app":{"auth":%q}}}`, host, auth("s3cret")), "", ""},
			"a wrong password":             {fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, auth("wrong")), api.KindDenied, "refuses it to alice"},
			"a login elsewhere":            {fmt.Sprintf(`{"auths":{"reg.example":{"auth":%q}}}`, auth("s3cret")), api.KindDenied, "wants a login"},
			"a helper of the host":         {fmt.Sprintf(`{"credHelpers":{%q:"works"}}`, host), "", ""},
			"a helper of all":              {`{"credsStore":"works"}`, "", ""},
			"a helper that has none":       {`{"credsStore":"empty"}`, api.KindDenied, "wants a login"},
			"a helper that fails":          {`{"credsStore":"fails"}`, api.KindDenied, "docker-credential-fails failed"},
			"a helper that babbles":        {`{"credsStore":"babbles"}`, api.KindDenied, "docker-credential-babbles failed"},
			"a helper that is not there":   {`{"credsStore":"nowhere"}`, api.KindUnavailable, "docker-credential-nowhere, which is not in the daemon's PATH"},
			"a helper that leads out":      {`{"credsStore":"x/../../../bin/sh"}`, api.KindInvalid, "slash"},
			"a configuration that is none": {`{"auths":`, api.KindInvalid, "config.json"},
			"an empty configuration":       {`{}`, api.KindDenied, "wants a login"},
		} {
			dir := t.TempDir()
			if tc.config != "" {
				if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(tc.config), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c := impatient(t, func(o *Options) {
				o.DockerConfig = dir
				o.Registries = map[string]Registry{host: {CA: registry.CA}}
			})
			image, err := c.Fetch(context.Background(), parse(t, registry.Ref("team/app:1")), nil)
			if tc.kind == "" {
				if err != nil {
					t.Errorf("%s, %s: %v", kind, name, err)
					continue
				}
				checkLayers(t, image, layer.Blob)
				image.Close()
				continue
			}
			t.Logf("%s, %s: %v", kind, name, err)
			hint := ""
			if tc.kind == api.KindDenied {
				hint = "docker login " + host
			}
			wantError(t, err, tc.kind, hint, tc.says, "cannot pull "+registry.Ref("team/app:1"))
		}
	}
	b, err := os.ReadFile(filepath.Join(bin, "asked"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Count(line, "/") > 0 || !strings.HasPrefix(line, "get 127.0.0.1:") {
			t.Errorf("the helper was asked %q", line)
		}
	}
}

// Docker's own registry gives everybody a token.
func TestATokenForEverybody(t *testing.T) {
	t.Parallel()
	registry := ocitest.Start(t, ocitest.WithTokens("", ""))
	layer := ocitest.Gzip(ocitest.Tar(t, ocitest.File("f", "public")))
	registry.Push(t, "team/app:1", ocitest.Image(t, v1.Config{}, layer))
	fetched(t, impatient(t, nil), registry.Ref("team/app:1"), layer.Blob)
}

func TestWhereDockersConfigurationIs(t *testing.T) {
	t.Parallel()
	for want, env := range map[string]map[string]string{
		"/d":              {"DOCKER_CONFIG": "/d", "HOME": "/home/u"},
		"/home/u/.docker": {"HOME": "/home/u"},
		"":                {"HOME": "relative"},
	} {
		if got := DockerConfig(func(k string) string { return env[k] }); got != want {
			t.Errorf("%v: %q", env, got)
		}
	}
}
