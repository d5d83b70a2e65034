// Package deps pins modules while the rooms are being written; it goes away.
package deps

import (
	_ "github.com/BurntSushi/toml"
	_ "github.com/Microsoft/hcsshim/ext4/tar2ext4"
	_ "github.com/coder/websocket"
	_ "github.com/containers/gvisor-tap-vsock/pkg/types"
	_ "github.com/containers/gvisor-tap-vsock/pkg/virtualnetwork"
	_ "github.com/creack/pty"
	_ "github.com/docker/go-units"
	_ "github.com/gofrs/flock"
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/google/renameio/v2"
	_ "github.com/hashicorp/yamux"
	_ "github.com/klauspost/compress/zstd"
	_ "github.com/pierrec/lz4/v4"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/spf13/cobra"
	_ "github.com/spf13/cobra/doc"
	_ "github.com/therootcompany/xz"
	_ "github.com/vishvananda/netlink"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/sync/singleflight"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/term"
	_ "modernc.org/sqlite"
)
