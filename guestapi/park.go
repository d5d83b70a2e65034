package guestapi

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// ParkedMark is the line on the console of a guest that was booted with
// Config.Park and waits: what comes next is the same for all machines of its kind.
const ParkedMark = "banger-guest: parked"

// maxWake is the largest Wake in bytes.
const maxWake = 1 << 20

// WakeReply is what a parked guest answers to a Wake, one byte.
const WakeReply = 0x06

// Wake is what a parked guest is told, the first thing on the port of the guest
// link: a length as uint32 big endian, then JSON.
type Wake struct {
	Config Config `json:"config"`
	// UnixNano is the time; the guest's clock stood still since it was parked.
	UnixNano int64 `json:"unix_nano"`
	// MAC is the address of eth0, which was another's; empty where there is none.
	MAC string `json:"mac,omitempty"`
}

// EncodeWake gives the bytes of a Wake whose time is now.
func EncodeWake(w Wake, now time.Time) ([]byte, error) {
	w.UnixNano = now.UnixNano()
	b, err := json.Marshal(w)
	if err == nil && len(b) > maxWake {
		err = fmt.Errorf("its configuration is %d bytes, %d are possible", len(b), maxWake)
	}
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...), nil
}

// ReadWake reads one, and nothing behind it.
func ReadWake(r io.Reader) (Wake, error) {
	var w Wake
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return w, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxWake {
		return w, fmt.Errorf("%d bytes are more than the %d possible", n, maxWake)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return w, err
	}
	return w, json.Unmarshal(b, &w)
}
