package oci

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/docker-credential-helpers/client"
	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/bangervm/banger/api"
)

const (
	// maxDockerConfig bounds what is read of Docker's config.json.
	maxDockerConfig = 4 << 20
	// helperTime is how long a credential helper may take. It may ask a person to
	// unlock a keyring, where there is one.
	helperTime = time.Minute
	// dockerHubKey is what Docker's own registry is called in config.json.
	dockerHubKey = "https://index.docker.io/v1/"
)

// DockerConfig is the folder of Docker's config.json, as Docker finds it; empty
// where there is no home.
func DockerConfig(getenv func(string) string) string {
	if dir := getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".docker")
	}
	return ""
}

// login is who we are to a registry; nobody when user and token are empty.
type login struct {
	auth authn.Authenticator
	user string // for messages
}

// credentials finds the login for a repository as Docker does: the helper that
// config.json names for the host, else the store of all, else the file itself.
func (c *Client) credentials(ctx context.Context, host, repository string) (login, error) {
	nobody := login{auth: authn.Anonymous}
	file, err := c.dockerConfig()
	if err != nil || file == nil {
		return nobody, err
	}
	keys := []string{host}
	if helperOf(file, hostKey(host)) == "" {
		keys = []string{host + "/" + repository, host} // as podman has them, and no helper
	}
	for _, key := range keys {
		found, err := lookUp(ctx, file, hostKey(key))
		if err != nil {
			return nobody, err
		}
		if found != (authn.AuthConfig{}) {
			user := found.Username
			if user == "" {
				user = "a token"
			}
			return login{auth: authn.FromConfig(found), user: user}, nil
		}
	}
	return nobody, nil
}

// hostKey is what a host is called in config.json.
func hostKey(host string) string {
	if host == dockerHub {
		return dockerHubKey
	}
	return host
}

// helperOf is the helper that keeps the login of a key; empty for the file.
func helperOf(file *configfile.ConfigFile, key string) string {
	if h, ok := file.CredentialHelpers[key]; ok {
		return h
	}
	return file.CredentialsStore
}

// dockerConfig reads config.json; nil when there is none.
func (c *Client) dockerConfig() (*configfile.ConfigFile, error) {
	if c.opt.DockerConfig == "" {
		return nil, nil
	}
	path := filepath.Join(c.opt.DockerConfig, config.ConfigFileName)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, api.Errorf(api.KindDenied, "cannot read Docker's configuration: %w", err).WithHint("ls -l %s", path)
	}
	defer func() { _ = f.Close() }()
	b, err := readBounded(f, maxDockerConfig)
	if err == nil {
		var file *configfile.ConfigFile
		if file, err = parseDockerConfig(b); err == nil {
			return file, nil
		}
	}
	return nil, api.Errorf(api.KindInvalid, "cannot read Docker's configuration %s: %w", path, err).WithHint("less %s", path)
}

func parseDockerConfig(b []byte) (*configfile.ConfigFile, error) {
	return config.LoadFromReader(strings.NewReader(string(b)))
}

// lookUp asks whoever holds the key's login; the zero AuthConfig is nobody's.
func lookUp(ctx context.Context, file *configfile.ConfigFile, key string) (authn.AuthConfig, error) {
	helper := helperOf(file, key)
	if helper == "" {
		got, err := file.GetAuthConfig(key)
		if err != nil {
			return authn.AuthConfig{}, err
		}
		return authn.AuthConfig{
			Username: got.Username, Password: got.Password, Auth: got.Auth, IdentityToken: got.IdentityToken, RegistryToken: got.RegistryToken,
		}, nil
	}
	return askHelper(ctx, helper, key)
}

// askHelper runs docker-credential-<helper> get.
func askHelper(ctx context.Context, helper, key string) (authn.AuthConfig, error) {
	program := "docker-credential-" + helper
	if strings.ContainsAny(helper, "/\x00") {
		return authn.AuthConfig{}, api.Errorf(api.KindInvalid, "cannot ask the credential helper %q: its name holds a slash", clip(helper))
	}
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	got, err := client.Get(func(args ...string) client.Program {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.WaitDelay = time.Second // what it started may hold its output
		return &helperRun{cmd: cmd}
	}, key)
	switch {
	case err == nil && got.Username == "<token>":
		return authn.AuthConfig{IdentityToken: got.Secret}, nil
	case err == nil:
		return authn.AuthConfig{Username: got.Username, Password: got.Secret}, nil
	case credentials.IsErrCredentialsNotFound(err):
		return authn.AuthConfig{}, nil
	case errors.Is(err, exec.ErrNotFound), strings.Contains(err.Error(), exec.ErrNotFound.Error()):
		return authn.AuthConfig{}, api.Errorf(api.KindUnavailable, "cannot log in to %s: Docker's configuration names the credential helper %s, which is not in the daemon's PATH", key, program).
			WithHint("type %s", program)
	case ctx.Err() != nil:
		return authn.AuthConfig{}, api.Errorf(api.KindTimeout, "cannot log in to %s: the credential helper %s did not answer within %s", key, program, helperTime).
			WithHint("docker login %s", canonicalHost(hostOfKey(key)))
	}
	return authn.AuthConfig{}, api.Errorf(api.KindDenied, "cannot log in to %s: the credential helper %s failed: %s", key, program, clip(strings.TrimSpace(err.Error()))).
		WithHint("docker login %s", canonicalHost(hostOfKey(key)))
}

// hostOfKey gives the host that a key of config.json is for.
func hostOfKey(key string) string {
	key = strings.TrimPrefix(key, "https://")
	host, _, _ := strings.Cut(key, "/")
	return host
}

// helperRun is one run of a credential helper.
type helperRun struct{ cmd *exec.Cmd }

func (r *helperRun) Output() ([]byte, error) { return r.cmd.Output() }
func (r *helperRun) Input(in io.Reader)      { r.cmd.Stdin = in }
