package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"

	"lbnode/state"
)

// Config is what a node needs to take part in a cluster.
type Config struct {
	// Name is shown to people. No two living nodes of a cluster may have the same.
	Name string
	// Version of the binary, told to the other nodes.
	Version string
	// DataDir holds the node's id, its log and its last view. It is made if it is
	// not there.
	DataDir string
	// Join lists the gossip addresses of the cluster's nodes, this one included:
	// host, host:port, or srv:_name for a DNS SRV name. A name stands for all its
	// addresses. Empty means a cluster of one.
	Join []string
	// Bind is where gossip listens, TCP and UDP, host:port.
	Bind string
	// Raft is where Raft and the calls between nodes listen, TCP, host:port.
	Raft string
	// Advertise is the IP address that other nodes reach this one at. Empty:
	// chosen, see chooseAdvertise.
	Advertise string
	// Secrets are shared by all nodes; from them come the gossip's keys and the
	// mutual TLS of all other calls. The first is used, all are accepted. Empty:
	// neither is protected.
	Secrets [][]byte
	// AllowFrom are the networks, in CIDR notation, and addresses from which other
	// nodes may come. Empty: from anywhere.
	AllowFrom []string
	// Insecure allows listening off loopback without Secrets.
	Insecure bool
	// NonVoter keeps this node from voting, or takes its vote away if it had one; it
	// serves traffic all the same.
	NonVoter bool
	// Seed are the backends of the default pool of a cluster that has no pool yet.
	Seed []state.Backend
	// RaftMultiplier stretches Raft's timeouts, 1 to 10: 1 elects within some 2
	// seconds; slow or crowded machines want more.
	RaftMultiplier int

	// OnView is called with each new view, one call at a time, before the write
	// that made it is answered. It must not block.
	OnView func(*state.View)
	// OnMembers is called, one call at a time, when nodes come or go. It must not
	// block.
	OnMembers func()
	// OnAutonomous is called with true when this node has been without a leader
	// for too long to trust the committed health, and with false when it has one.
	OnAutonomous func(bool)
	// OnCommit, unless nil, is called on the leader for each write that is committed,
	// with the time that it took. It may be called concurrently and must not block.
	OnCommit func(took time.Duration)
	// Local gives what only this node knows, for its own status and for the
	// leader.
	Local func() Local
	Log   *slog.Logger

	hooks hooks
}

// hooks let tests stand between a node and its network and its disk. They are nil
// otherwise.
type hooks struct {
	// dialed is the dialer's watch.
	dialed func(addr string, conn net.Conn) (net.Conn, error)
	// logs wraps the store of Raft's log, below its guard.
	logs func(raft.LogStore) raft.LogStore
	// lookup stands in for DNS.
	lookup lookup
	// gossip changes how memberlist works.
	gossip func(*memberlist.Config)
}

// Times that the parts of this package share. They are variables of no Config
// because no deployment has needed others.
const (
	waitingEvery    = 5 * time.Second         // between two lines that say what a node waits for
	formRound       = 300 * time.Millisecond  // between two looks at the listed peers
	formGrace       = 5 * time.Second         // how long a node that may not found a cluster waits for one
	namesSteady     = 5 * time.Second         // how long names must lead to the same nodes where only DNS says how many there are
	promiseHolds    = 15 * time.Second        // how long a peer is bound to a founder
	probeEvery      = 700 * time.Millisecond  // between two probes of another member by gossip
	suspectFor      = 3                       // probes' time that a suspected member has to answer, twice that if only one suspects it
	rejoinSoon      = time.Second             // between two tries to reach members lost of late
	seedEvery       = 5 * time.Second         // between two tries to reach listed peers that are not there
	rejoinEvery     = 10 * time.Second        // between two tries to reach peers long gone
	copyWithin      = time.Second             // how long a node that starts waits to be told that it is a copy
	leaderlessAfter = 5 * time.Second         // without a leader: autonomous, writes refused at once
	proposeWithin   = 1800 * time.Millisecond // a write or consistent read takes at most this long
	enqueueWithin   = time.Second             // for Raft to begin with it; less, so that a refusal is heard
	officeWithin    = 10 * time.Second        // what a leader does of its own accord takes at most this long
	callWithin      = 2 * time.Second         // a call to another node, unless it says otherwise
	statusWithin    = 800 * time.Millisecond  // for all nodes to answer when the cluster is shown
	refusesFor      = 10 * time.Second        // a leader that has taken no write for so long restarts its Raft
	stopWithin      = 5 * time.Second         // for Raft to end
	resendEvery     = 5 * time.Second         // between two reports of all observations
	reportFresh     = 3 * resendEvery         // an older report counts for nothing
	reconcileEvery  = time.Second             // between two looks of the leader at the members
	removeDeadAfter = 10 * time.Minute        // a voter gone this long may be removed
	maxVoters       = 5
	minVoters       = 3 // the dead are not removed below this
	maxTwins        = 8 // places at once where a node asks for itself
)

// Validate checks what can be checked without touching the machine. The error
// names the flag that sets what is wrong.
func (c *Config) Validate() error {
	if err := checkName(c.Name); err != nil {
		return err
	}
	if c.DataDir == "" {
		return errors.New("no data directory: set -data-dir")
	}
	if c.RaftMultiplier < 1 || c.RaftMultiplier > 10 {
		return fmt.Errorf("raft multiplier must be 1 to 10, not %d", c.RaftMultiplier)
	}
	if c.Advertise != "" {
		ip, err := netip.ParseAddr(c.Advertise)
		if err != nil || ip.IsUnspecified() {
			return fmt.Errorf("-advertise %q is not an IP address that others can reach", c.Advertise)
		}
	}
	for flag, addr := range map[string]string{"-bind": c.Bind, "-raft": c.Raft} {
		if err := c.checkListen(flag, addr); err != nil {
			return err
		}
	}
	if _, err := ParseNetworks("allow-from", c.AllowFrom); err != nil {
		return err
	}
	_, err := ParseJoin(c.Join, 0)
	return err
}

// checkName keeps names to what needs no quoting in JSON, tables and metrics.
func checkName(name string) error {
	if name == "" || len(name) > 63 {
		return fmt.Errorf("node name %q must have 1 to 63 characters: set -node", name)
	}
	for _, r := range name {
		if r <= ' ' || r == '"' || r == '\\' || r > '~' {
			return fmt.Errorf("node name %q may hold only printable ASCII without spaces or quotes: set -node", name)
		}
	}
	return nil
}

// checkListen refuses what does not parse, and what would be open to the network
// without protection.
func (c *Config) checkListen(flag, addr string) error {
	host, _, err := splitAddr(addr)
	if err != nil {
		return fmt.Errorf("%s %q is not an address such as 10.0.0.1:7946: %w", flag, addr, err)
	}
	if len(c.Secrets) == 0 && !c.Insecure && !isLoopback(host) {
		return fmt.Errorf("%s %s is reachable from other machines and there is no -secret: make one with lbnode keygen and give it to every node, or say -insecure", flag, addr)
	}
	return nil
}

// splitAddr parses host:port; the host is empty or an IP address.
func splitAddr(addr string) (host string, port int, err error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	if port, err = strconv.Atoi(service); err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("port %q is not a number from 0 to 65535", service)
	}
	if host != "" && net.ParseIP(host) == nil {
		return "", 0, fmt.Errorf("host %q is not an IP address", host)
	}
	return host, port, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func isWildcard(host string) bool {
	return host == "" || net.ParseIP(host).IsUnspecified()
}
