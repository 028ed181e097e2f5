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
	// ErrNoLeader: the cluster cannot take the write now, and it has not happened.
	// It may be tried again.
	ErrNoLeader = errors.New("no leader")
	// ErrUnknownOutcome: the write was handed over, but what became of it is not
	// known: it has happened, may yet happen, or never will. Sent once more with the
	// same request id, it takes effect once.
	ErrUnknownOutcome = errors.New("the outcome is unknown")
	// ErrHeldBack: a member of the cluster runs a version that does not understand
	// the write, so it is not made until all are upgraded.
	ErrHeldBack = errors.New("not every node understands this yet")
	// ErrNeeded: without this node, too few voters would be left that answer.
	ErrNeeded = errors.New("the cluster cannot do without this node now")
	// ErrAlive: the node that is to be removed as a dead one is alive.
	ErrAlive = errors.New("the node is alive")
	// ErrNoMember: there is no such node among Raft's members.
	ErrNoMember = errors.New("there is no such member")
	// ErrForeign: this node and the peer belong to different clusters.
	ErrForeign = errors.New("belongs to another cluster")
	// errNotLeader: the node asked is not the leader (any more).
	errNotLeader = errors.New("not the leader")
	// errUnreached: no connection to the node could be opened.
	errUnreached = errors.New("cannot reach the node")
)

// reason puts the cause of a failed contact in a word or two.
func reason(err error) string {
	var dns *net.DNSError
	switch {
	case err == nil:
		return ""
	case secretDiffers(err) != "":
		return secretDiffers(err)
	case errors.As(err, &dns):
		return "does not resolve"
	case errors.Is(err, syscall.ECONNREFUSED), strings.Contains(err.Error(), "connection refused"):
		return "refused"
	case errors.Is(err, os.ErrDeadlineExceeded), strings.Contains(err.Error(), "i/o timeout"):
		return "no answer"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH),
		strings.Contains(err.Error(), "no route to host"), strings.Contains(err.Error(), "network is unreachable"):
		return "no route"
	case errors.Is(err, io.EOF), strings.Contains(err.Error(), "EOF"):
		return "hung up: does it have the same -secret?"
	}
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", " ")
}

// inUse says whether err means that an address is taken by another process.
// memberlist keeps only the text of the cause.
func inUse(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), "address already in use")
}
