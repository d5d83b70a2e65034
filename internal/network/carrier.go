package network

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
)

// stream carries frames over a connection, each behind its length as uint32 big
// endian.
type stream struct {
	conn net.Conn
	r    *bufio.Reader
	size [4]byte
	out  net.Buffers
}

func newStream(conn net.Conn) *stream {
	return &stream{conn: conn, r: bufio.NewReaderSize(conn, 32<<10)}
}

func (s *stream) read(longest int) (*buffer.View, error) { return readFrame(s.r, longest) }

func (s *stream) write(parts [][]byte) error {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	binary.BigEndian.PutUint32(s.size[:], uint32(n))
	s.out = append(append(s.out[:0], s.size[:]), parts...)
	all := s.out // WriteTo eats it up
	_, err := all.WriteTo(s.conn)
	return err
}

// readFrame reads one frame. One too short to be a frame gives nil; one longer
// than the device can send is an error: the stream is not what it should be.
func readFrame(r *bufio.Reader, longest int) (*buffer.View, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > uint32(longest) {
		return nil, fmt.Errorf("cannot read a frame: %d bytes exceed %d", n, longest)
	}
	if n < ethernetHead {
		_, err := r.Discard(int(n))
		return nil, err
	}
	v := buffer.NewViewSize(int(n))
	if _, err := io.ReadFull(r, v.AsSlice()); err != nil {
		v.Release()
		return nil, err
	}
	return v, nil
}

// tap carries frames through a tap device: one read or write is one frame.
type tap struct {
	file *os.File
	raw  syscall.RawConn
	in   []byte
}

func newTap(file *os.File) (*tap, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &tap{file: file, raw: raw}, nil
}

func (t *tap) read(longest int) (*buffer.View, error) {
	if len(t.in) < longest {
		t.in = make([]byte, longest)
	}
	n, err := t.file.Read(t.in)
	switch {
	case err != nil:
		return nil, err
	case n < ethernetHead:
		return nil, nil
	}
	return buffer.NewViewWithData(t.in[:n]), nil
}

// write loses a frame that the device does not take, as networks do: it is down
// while the VMM is not ready for it.
func (t *tap) write(parts [][]byte) error {
	var fault error
	err := t.raw.Write(func(fd uintptr) bool {
		_, fault = unix.Writev(int(fd), parts)
		return !errors.Is(fault, unix.EAGAIN)
	})
	switch {
	case err != nil:
		return err
	case errors.Is(fault, unix.EIO), errors.Is(fault, unix.ENOBUFS), errors.Is(fault, unix.ENOMEM), errors.Is(fault, unix.EINVAL):
		return nil
	}
	return fault
}
