package network

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	hostResolvConf = "/etc/resolv.conf"
	// queryTimeout is how long one resolver may take before the next is asked.
	queryTimeout = 3 * time.Second
	maxResolvers = 3
	// maxSocketQueries bounds the queries of one socket of the guest under way.
	maxSocketQueries = 16
	dnsHead          = 12
	// dnsIdle is how long a socket of the guest is kept for its next query; a
	// later one begins a flow anew.
	dnsIdle = time.Second
)

// resolvers are the host's name servers. Queries are handed to them as they
// are, and so are the answers: every record type and extension works.
type resolvers struct {
	path string

	mu      sync.Mutex
	read    time.Time // the file's time of change when it was read
	servers []string
}

func newResolvers(path string) *resolvers {
	if path == "" {
		path = hostResolvConf
	}
	return &resolvers{path: path}
}

// list gives the name servers, reading the file again when it changed.
func (r *resolvers) list() ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fi, err := os.Stat(r.path)
	if err != nil {
		return nil, err
	}
	if !fi.ModTime().Equal(r.read) || r.servers == nil {
		f, err := os.Open(r.path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r.servers, r.read = parseResolvConf(f), fi.ModTime()
	}
	if len(r.servers) == 0 {
		return nil, errors.New("the host has no name server in " + r.path)
	}
	return r.servers, nil
}

// parseResolvConf gives the first name servers of a resolv.conf.
func parseResolvConf(f io.Reader) []string {
	servers := []string{}
	s := bufio.NewScanner(io.LimitReader(f, 64<<10))
	for s.Scan() && len(servers) < maxResolvers {
		words := strings.Fields(s.Text())
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		host, _, _ := strings.Cut(words[1], "%")
		if net.ParseIP(host) != nil {
			servers = append(servers, words[1])
		}
	}
	return servers
}

func (r *resolvers) dialTCP(ctx context.Context) (net.Conn, error) {
	servers, err := r.list()
	for _, s := range servers {
		d := net.Dialer{Timeout: queryTimeout}
		var c net.Conn
		if c, err = d.DialContext(ctx, "tcp", hostPort(s)); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// ask hands the query to one resolver after the other until one answers.
func (r *resolvers) ask(ctx context.Context, query []byte) ([]byte, error) {
	servers, err := r.list()
	for _, s := range servers {
		var answer []byte
		if answer, err = askOne(ctx, s, query); err == nil {
			return answer, nil
		}
	}
	return nil, err
}

func askOne(ctx context.Context, server string, query []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", hostPort(server))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	b := make([]byte, maxDatagram)
	for {
		k, err := c.Read(b)
		if err != nil {
			return nil, err
		}
		if k >= dnsHead && b[0] == query[0] && b[1] == query[1] {
			return b[:k], nil
		}
	}
}

// serveDNS answers the queries that come from one socket of the guest, until
// none comes any more. Several may be under way.
func (n *Network) serveDNS(in net.Conn) {
	var wg sync.WaitGroup
	defer wg.Wait()
	places := make(chan struct{}, maxSocketQueries)
	stop := context.AfterFunc(n.ctx, func() { in.Close() })
	defer stop()
	b := make([]byte, 4<<10)
	for n.ctx.Err() == nil {
		in.SetReadDeadline(time.Now().Add(dnsIdle))
		k, err := in.Read(b)
		if err != nil {
			return
		}
		if k < dnsHead || b[2]&0x80 != 0 { // not a query
			continue
		}
		query := append([]byte(nil), b[:k]...)
		select {
		case places <- struct{}{}:
		default:
			continue // lost, as UDP may
		}
		select {
		case n.queries <- struct{}{}:
		default:
			<-places
			continue
		}
		wg.Go(func() {
			defer func() { <-n.queries; <-places }()
			if n.up.wait(n.ctx, len(query)) != nil {
				return
			}
			answer, err := n.resolvers.ask(n.ctx, query)
			if err != nil {
				n.log.Debug("no resolver answered the guest", "error", err)
				answer = serverFailure(query)
			}
			metered{in, n.down, n.ctx}.Write(answer)
		})
	}
}

// serverFailure tells the guest at once that there is no answer, so that it
// does not wait for one. It repeats the question, when that can be found.
func serverFailure(query []byte) []byte {
	const (
		response           = 0x80
		recursionAvailable = 0x80
		failure            = 2
	)
	end := dnsHead
	questions := binary.BigEndian.Uint16(query[4:])
	if questions == 1 {
		for end < len(query) && query[end] != 0 && query[end] < 64 {
			end += 1 + int(query[end])
		}
		end += 5 // the root label, type and class
	}
	if questions != 1 || end > len(query) {
		end, questions = dnsHead, 0
	}
	a := append([]byte(nil), query[:end]...)
	a[2] = a[2]&0x79 | response
	a[3] = recursionAvailable | failure
	clear(a[4:dnsHead])
	binary.BigEndian.PutUint16(a[4:], questions)
	return a
}
