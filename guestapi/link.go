package guestapi

import (
	"bytes"
	"fmt"
	"io"
)

// A byte stream that outlives its users, such as a virtio-serial port, cannot
// say where one session ends and the next begins. So each session of the guest
// link opens with records that no frame of an older session can be taken for:
//
//	host  → guest  hello(nonce), again and again until echoed
//	guest → host   echo(nonce), for each hello
//	host  → guest  go(nonce), once, for the first echo; yamux frames may follow at once
//	guest → host   ready(nonce); yamux frames follow
//
// The host is yamux's client, the guest its server. A record never begins with
// the first byte of a yamux frame, so an end still inside an older session fails
// at it and starts over.

// LinkKind is what a record says.
type LinkKind byte

// The kinds of records.
const (
	LinkHello LinkKind = 'h'
	LinkEcho  LinkKind = 'e'
	LinkGo    LinkKind = 'g'
	LinkReady LinkKind = 'r'
)

const linkMagic = "\xbabanger"

// LinkRecordSize is the length of a record in bytes: magic, kind, nonce.
const LinkRecordSize = len(linkMagic) + 1 + 16

// Nonce tells one attempt to open the link from another.
type Nonce [16]byte

// LinkRecord encodes a record.
func LinkRecord(kind LinkKind, nonce Nonce) []byte {
	b := make([]byte, 0, LinkRecordSize)
	b = append(b, linkMagic...)
	b = append(b, byte(kind))
	return append(b, nonce[:]...)
}

// LinkScanner finds records in a stream that may hold the remains of an older
// session. It never reads beyond the record it returns, and an error in the
// middle, such as a deadline, loses nothing: Next may be called again.
type LinkScanner struct {
	r       io.Reader
	buf     [LinkRecordSize]byte
	n       int
	skipped int
	limit   int
}

// NewLinkScanner reads from r and gives up after limit bytes that belong to no
// record.
func NewLinkScanner(r io.Reader, limit int) *LinkScanner {
	return &LinkScanner{r: r, limit: limit}
}

// Next returns the next record.
func (s *LinkScanner) Next() (LinkKind, Nonce, error) {
	for {
		for s.n < len(s.buf) {
			n, err := s.r.Read(s.buf[s.n:])
			s.n += n
			if err != nil && s.n < len(s.buf) {
				return 0, Nonce{}, err
			}
		}
		if bytes.HasPrefix(s.buf[:], []byte(linkMagic)) {
			kind := LinkKind(s.buf[len(linkMagic)])
			nonce := Nonce(s.buf[len(linkMagic)+1:])
			s.n = 0
			return kind, nonce, nil
		}
		skip := bytes.IndexByte(s.buf[1:], linkMagic[0]) + 1
		if skip == 0 {
			skip = len(s.buf)
		}
		s.n = copy(s.buf[:], s.buf[skip:])
		if s.skipped += skip; s.skipped > s.limit {
			return 0, Nonce{}, fmt.Errorf("cannot open the guest link: %d bytes of something else on it", s.skipped)
		}
	}
}
