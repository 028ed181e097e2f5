package cluster

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

var (
	// ErrNoLeader: the cluster cannot take writes now, because no leader is known
	// or none could commit in time. The write may be tried again.
	ErrNoLeader = errors.New("no leader")
	// ErrForeign: this node and the peer belong to different clusters.
	ErrForeign = errors.New("belongs to another cluster")
	// errNotLeader: the node asked is not the leader (any more).
	errNotLeader = errors.New("not the leader")
)

// reason puts the cause of a failed contact in a word or two.
func reason(err error) string {
	var dns *net.DNSError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &dns):
		return "does not resolve"
	case errors.Is(err, syscall.ECONNREFUSED), strings.Contains(err.Error(), "connection refused"):
		return "refused"
	case errors.Is(err, os.ErrDeadlineExceeded), strings.Contains(err.Error(), "i/o timeout"):
		return "no answer"
	case errors.Is(err, syscall.EHOSTUNREACH), strings.Contains(err.Error(), "no route to host"):
		return "no route"
	case errors.Is(err, io.EOF), strings.Contains(err.Error(), "EOF"), strings.Contains(err.Error(), "crypt"):
		return "hung up: does it have the same -secret?"
	}
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", " ")
}

// inUse says whether err means that an address is taken by another process.
// memberlist keeps only the text of the cause.
func inUse(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), "address already in use")
}
