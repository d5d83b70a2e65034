package keeper

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/bangervm/banger/guestapi"
)

// bulkTimeout is how long the guest may take to accept a connection on its bulk
// port, before the guest link is used instead.
const bulkTimeout = 2 * time.Second

// dialBulkPort connects through the user network and introduces itself.
func (k *keeper) dialBulkPort(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, bulkTimeout)
	defer cancel()
	conn, err := k.net.DialGuest(ctx, guestapi.BulkPort)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, k.cfg.Token); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
