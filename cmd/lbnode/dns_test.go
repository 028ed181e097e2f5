package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runDNS in the environment makes the test binary a DNS server of the file that it names.
const runDNS = "LBNODE_TEST_RUN_DNS"

// resolver is a DNS server on the loopback address of one host, and what makes a command use it.
type resolver struct {
	t       *testing.T
	records string // file; while it is not there, the server is silent
	conf    string // for /etc/resolv.conf
}

// newResolver starts a silent DNS server on a host.
func newResolver(h *host) *resolver {
	h.t.Helper()
	dir := h.t.TempDir()
	r := &resolver{t: h.t, records: filepath.Join(dir, "records"), conf: filepath.Join(dir, "resolv.conf")}
	if err := os.WriteFile(r.conf, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		h.t.Fatal(err)
	}
	p := newProcess(h.t, "dns", "dns")
	p.under, p.env = h.inside(), []string{runDNS + "=" + r.records}
	p.start()
	return r
}

// under is the command that has another one use the resolver.
func (r *resolver) under() []string {
	return []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, r.conf}
}

// knows makes these all the records, each a name and an address. Without any, all names are unknown.
func (r *resolver) knows(records ...string) {
	r.t.Helper()
	next := r.records + ".next"
	if err := os.WriteFile(next, []byte(strings.Join(records, "\n")), 0o644); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(next, r.records); err != nil {
		r.t.Fatal(err)
	}
}

// silence makes the server answer nothing.
func (r *resolver) silence() {
	if err := os.Remove(r.records); err != nil {
		r.t.Fatal(err)
	}
}

// serveDNS answers queries for A records by a file until the process is ended.
func serveDNS(path string) error {
	conn, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		records, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if answer, err := answerDNS(buf[:n], string(records)); err == nil {
			conn.WriteTo(answer, from) // who does not get it asks again
		}
	}
}

// answerDNS answers a query of one question (RFC 1035, 4.1).
func answerDNS(query []byte, records string) ([]byte, error) {
	const header, typeA = 12, 1
	var labels []string
	at := header
	for at < len(query) && query[at] > 0 {
		end := at + 1 + int(query[at])
		if end >= len(query) {
			return nil, errors.New("the name does not end")
		}
		labels = append(labels, string(query[at+1:end]))
		at = end
	}
	if at+5 > len(query) {
		return nil, errors.New("the question does not end")
	}
	asked, known := binary.BigEndian.Uint16(query[at+1:]), false
	question := query[header : at+5]
	var answers []byte
	count := uint16(0)
	for line := range strings.Lines(records) {
		var name, addr string
		if n, _ := fmt.Sscan(line, &name, &addr); n < 2 || !strings.EqualFold(name, strings.Join(labels, ".")) {
			continue
		}
		if known = true; asked == typeA {
			answers = append(answers, 0xc0, header, 0, typeA, 0, 1, 0, 0, 0, 0, 0, 4) // a pointer to the name, of class IN, for no time, 4 bytes
			answers = append(answers, netip.MustParseAddr(addr).AsSlice()...)
			count++
		}
	}
	answer := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, byte(count >> 8), byte(count), 0, 0, 0, 0}, question...)
	if !known {
		answer[3] |= 3 // no such name
	}
	return append(answer, answers...), nil
}
