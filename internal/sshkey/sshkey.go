package sshkey

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/google/renameio/v2"
	"golang.org/x/crypto/ssh"

	"github.com/bangervm/banger/api"
)

// maxKey bounds a key file, in bytes.
const maxKey = 64 << 10

// Key is the public half of a key.
type Key struct {
	Path        string // of the private half
	Line        string // type and key as authorized_keys has them, with no comment
	Fingerprint string // SHA256:…
}

// Keys gives the key. Its methods may be called from several goroutines; of the
// daemons of a root only one may make a key.
type Keys struct {
	own    string // the configuration's ssh_key_path; empty: ours
	ours   string
	making sync.Mutex
}

// New gives keys: the user's own at path, or, where that is empty, ours at ours.
func New(path, ours string) *Keys { return &Keys{own: path, ours: ours} }

// Key reads the key anew, so that a changed one counts from the next call on.
// Ours is made when it is missing; a missing one of the user's is an error.
func (k *Keys) Key() (Key, error) {
	if k.own != "" {
		key, err := read(k.own)
		if err != nil {
			hint := "ls -l " + k.own
			if errors.Is(err, os.ErrNotExist) {
				hint = "ssh-keygen -t ed25519 -f " + strings.TrimSuffix(k.own, ".pub")
			}
			return key, api.Errorf(api.KindInvalid, "cannot use ssh_key_path %s: %w", k.own, err).WithHint("%s", hint)
		}
		return key, nil
	}
	k.making.Lock()
	defer k.making.Unlock()
	key, err := read(k.ours)
	if errors.Is(err, os.ErrNotExist) {
		if err = create(k.ours); err == nil {
			key, err = read(k.ours)
		}
	}
	if err != nil {
		kind := api.KindInternal
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			kind = api.KindNoSpace
		}
		return key, api.Errorf(kind, "cannot use the ssh key %s: %w", k.ours, err).WithHint("ls -l %s", k.ours)
	}
	return key, nil
}

// read takes the public half: of the private key, of the .pub file beside one
// that a passphrase closes, or of a .pub file itself.
func read(path string) (Key, error) {
	b, err := readSmall(path)
	if err != nil {
		return Key{}, err
	}
	private := strings.TrimSuffix(path, ".pub")
	if signer, err := ssh.ParsePrivateKey(b); err == nil {
		return keyOf(private, signer.PublicKey()), nil
	} else if closed := (*ssh.PassphraseMissingError)(nil); errors.As(err, &closed) {
		if closed.PublicKey != nil {
			return keyOf(private, closed.PublicKey), nil
		}
		if b, err = readSmall(path + ".pub"); err != nil {
			return Key{}, fmt.Errorf("a passphrase closes it, and its public half cannot be read: %w", err)
		}
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		return Key{}, errors.New("it is no ssh key")
	}
	return keyOf(private, public), nil
}

func keyOf(path string, public ssh.PublicKey) Key {
	return Key{Path: path, Line: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))), Fingerprint: ssh.FingerprintSHA256(public)}
}

func readSmall(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxKey {
		return nil, errors.New("it is no small file")
	}
	return io.ReadAll(io.LimitReader(f, maxKey))
}

// create makes an ed25519 key. The private half is renamed into place last, so
// that a key that is there is whole and has its public half beside it.
func create(path string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "banger")
	if err != nil {
		return err
	}
	pub, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub))) + " banger\n"
	if err := renameio.WriteFile(path+".pub", []byte(line), 0o644, renameio.IgnoreUmask()); err != nil {
		return err
	}
	return renameio.WriteFile(path, pem.EncodeToMemory(block), 0o600, renameio.IgnoreUmask())
}
