package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"lbnode/cluster/admin"
)

// lan is three nodes, each on a host of its own, and a host that the clients and
// the backends are on.
type lan struct {
	*trial
	hosts map[*lb]*host
}

// startLAN starts one.
func startLAN(t *testing.T) *lan {
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("needs iptables to cut links")
	}
	hosts := network(t, 4)
	world := hosts[3]
	nodes := newHostLBs(t, hosts[:3], world)
	var backends []string
	for i := range 3 {
		name, addr := fmt.Sprintf("web-%d", i+1), fmt.Sprintf("%s:%d", world.addr, 9001+i)
		world.daemon(name, "demo", "backend", name, addr)
		backends = append(backends, "http://"+addr)
	}
	l := &lan{hosts: map[*lb]*host{}}
	for i, n := range nodes {
		l.hosts[n] = hosts[i]
	}
	l.trial = startTrial(t, nodes, backends...)
	return l
}

// newHostLBs prepares a node with the default ports on each host. The test reaches
// their traffic and admin ports by way of the host world.
func newHostLBs(t *testing.T, hosts []*host, world *host) []*lb {
	secret, join := newSecret(t), []string{}
	for _, h := range hosts {
		join = append(join, h.addr)
	}
	nodes, inner := make([]*lb, len(hosts)), []string{}
	for i, h := range hosts {
		name := fmt.Sprintf("lb%d", i+1)
		nodes[i] = &lb{process: newProcess(t, name, "-node", name, "-data-dir", t.TempDir(), "-join", strings.Join(join, ","),
			"-secret", secret, "-admin", ":8404", "-insecure")}
		nodes[i].under = []string{"ip", "netns", "exec", h.namespace}
		inner = append(inner, h.addr+":8080", h.addr+":8404")
	}
	outer := world.relay(inner)
	for i, n := range nodes {
		n.http, n.admin = outer[2*i], outer[2*i+1]
		n.client = admin.NewClient(n.admin, "")
	}
	return nodes
}

// relay leads from ports of the test's own network, which it returns, to addresses
// that the host reaches, until the test ends.
func (h *host) relay(addrs []string) (outer []string) {
	h.t.Helper()
	cmd := exec.Command("ip", "netns", "exec", h.namespace, os.Args[0])
	cmd.Env = append(os.Environ(), runRelay+"="+strings.Join(addrs, ","))
	cmd.Stderr = os.Stderr
	for range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			h.t.Fatal(err)
		}
		file, err := l.(*net.TCPListener).File()
		if err != nil {
			h.t.Fatal(err)
		}
		outer = append(outer, l.Addr().String())
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
		defer l.Close()
		defer file.Close()
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return outer
}

// lose makes the host lose packets from another one: those that match.
func (h *host) lose(from *host, match ...string) {
	h.t.Helper()
	h.filter(from, match, "DROP")
}

// filter makes the host do something with packets from another one, such as lose or refuse
// them: those that match.
func (h *host) filter(from *host, match []string, action ...string) {
	h.t.Helper()
	ip(h.t, slices.Concat([]string{"netns", "exec", h.namespace, "iptables", "-w", "-A", "INPUT", "-s", from.addr}, match, []string{"-j"}, action)...)
}

// mend makes the host lose nothing any more and says how many packets it has lost.
func (h *host) mend() (lost int) {
	h.t.Helper()
	out, err := exec.Command("ip", "netns", "exec", h.namespace, "iptables", "-w", "-nvxL", "INPUT").Output()
	if err != nil {
		h.t.Fatalf("cannot read the rules of %s: %v", h.addr, err)
	}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) > 2 && (fields[2] == "DROP" || fields[2] == "REJECT") {
			packets, err := strconv.Atoi(fields[0])
			if err != nil {
				h.t.Fatalf("cannot read the rule %q: %v", line, err)
			}
			lost += packets
		}
	}
	ip(h.t, "netns", "exec", h.namespace, "iptables", "-w", "-F", "INPUT")
	return lost
}

// mend makes all hosts lose nothing any more. That they lost nothing before means
// that the test is broken.
func (l *lan) mend(t *testing.T) {
	t.Helper()
	lost := 0
	for _, h := range l.hosts {
		lost += h.mend()
	}
	if lost == 0 {
		t.Error("no packet was lost: the fault did not happen")
	}
}

// cut is what is lost on the way from one role to another.
type cut struct {
	from, to int // 0 the leader, 1 and 2 the followers
	protocol string
}

func (c cut) match() []string {
	if c.protocol == "both" {
		return nil
	}
	return []string{"-p", c.protocol}
}

func (c cut) String() string {
	names := []string{"leader", "one follower", "other follower"}
	return names[c.from] + " to " + names[c.to] + " " + c.protocol
}

// isolated are all cuts that leave a role alone.
func isolated(role int) []cut {
	var all []cut
	for other := range 3 {
		if other != role {
			all = append(all, cut{role, other, "both"}, cut{other, role, "both"})
		}
	}
	return all
}

// cutCases are the sets of cuts that are made one after the other.
func cutCases() [][]cut {
	if !*long {
		return [][]cut{{{0, 1, "both"}}, {{1, 0, "tcp"}}, isolated(0)}
	}
	cases := [][]cut{isolated(0), isolated(1), isolated(2)}
	for from := range 3 {
		for to := range 3 {
			for _, protocol := range []string{"tcp", "udp", "both"} {
				if from != to {
					cases = append(cases, []cut{{from, to, protocol}})
				}
			}
		}
	}
	return cases
}

// Links are cut, one direction at a time, and mended.
func cutLinks(t *testing.T) {
	l := startLAN(t)
	var healed []time.Duration
	for _, cuts := range cutCases() {
		for try := 1; ; try++ {
			took, elections := l.cut(t, cuts)
			healed = append(healed, took)
			if elections == 0 {
				break
			}
			if try == 3 { // a busy machine may miss heartbeats, but not each time
				t.Errorf("%v: got %d elections when the link was mended, three times in a row; want none", cuts, elections)
				break
			}
		}
	}
	l.end(t, fmt.Sprintf("%d cuts; healed %s", len(healed), spread(healed)))
}

// cut cuts, writes through every node, mends, and returns how long it takes to heal
// and how many elections that needs.
func (l *lan) cut(t *testing.T, cuts []cut) (healed time.Duration, elections int) {
	t.Helper()
	whole(t, l.nodes)
	lead, followers := roles(t, l.nodes)
	in := []*host{l.hosts[lead], l.hosts[followers[0]], l.hosts[followers[1]]}
	start := highestTerm(l.nodes)
	clients := l.journal.startWriting(l.nodes, 6)
	for _, c := range cuts {
		in[c.to].lose(in[c.from], c.match()...)
	}
	hold(t, amount(6*time.Second, 15*time.Second))
	before := highestTerm(l.nodes)
	clients.halt()
	l.mend(t)
	healed = whole(t, l.nodes)
	after := highestTerm(l.nodes)
	clients.stop()
	t.Logf("%v: healed after %s, %d elections during the cut, %d after", cuts, healed.Round(time.Millisecond), before-start, after-before)
	return healed, int(after - before)
}

// No datagram gets through between two nodes, both ways.
func blockUDP(t *testing.T) {
	l := startLAN(t)
	one, other, warned := l.nodes[0], l.nodes[2], ""
	for try := 1; ; try++ {
		whole(t, l.nodes)
		before := highestTerm(l.nodes)
		l.hosts[one].lose(l.hosts[other], "-p", "udp")
		l.hosts[other].lose(l.hosts[one], "-p", "udp")
		hold(t, amount(20*time.Second, 5*time.Minute))
		eventually(t, patience, "/cluster names the link", func() bool {
			warned = l.nodes[1].warnings()
			return strings.Contains(warned, "UDP 7946 blocked from "+one.name+" to "+other.name) &&
				strings.Contains(warned, "UDP 7946 blocked from "+other.name+" to "+one.name)
		})
		after := highestTerm(l.nodes)
		l.mend(t)
		if after == before {
			break
		}
		if try == 3 {
			t.Errorf("got term %d after %d with UDP blocked, three times in a row; want no change", after, before)
			break
		}
	}
	if lost := l.watch.lost(); len(lost) > 0 {
		t.Errorf("got nodes given up while only UDP was blocked between two: %v", lost)
	}
	l.end(t, fmt.Sprintf("UDP blocked between %s and %s; /cluster warns %q", one.name, other.name, warned))
}

// Every tenth packet between nodes is lost.
func losePackets(t *testing.T) {
	l := startLAN(t)
	for _, to := range l.nodes {
		for _, from := range without(l.nodes, to) {
			l.hosts[to].lose(l.hosts[from], "-m", "statistic", "--mode", "random", "--probability", "0.1")
		}
	}
	clients := l.journal.startWriting(l.nodes, 6)
	hold(t, amount(5*time.Second, 5*time.Minute))
	clients.stop()
	during := len(l.watch.lost())
	l.mend(t)
	healed := whole(t, l.nodes)
	l.end(t, fmt.Sprintf("a tenth of all packets lost: %d nodes given up, whole again after %s", during, healed.Round(time.Millisecond)))
}

// All that nodes send one another takes 50 ms each way.
func slowLinks(t *testing.T) {
	nodes := newLBs(t, 3)
	var join []string
	for _, n := range nodes {
		real, late := n.argument("-bind"), loopback()
		join = append(join, onHost(t, late, *real))
		n.args = append(n.args, "-advertise", late)
		relayLate(t, onHost(t, late, *real), *real, 50*time.Millisecond)
		relayLate(t, onHost(t, late, *n.argument("-raft")), *n.argument("-raft"), 50*time.Millisecond)
	}
	for _, n := range nodes {
		*n.argument("-join") = strings.Join(join, ",")
	}
	tr := startTrial(t, nodes)
	clients := tr.journal.startWriting(nodes, 6)
	hold(t, amount(5*time.Second, 5*time.Minute))
	clients.stop()
	_, followers := roles(t, nodes)
	began := time.Now()
	if tr.journal.write(followers[0]) && time.Since(began) < 200*time.Millisecond {
		t.Errorf("got a write done in %s, want at least 200 ms: to the leader, to a follower, and back", time.Since(began))
	}
	tr.end(t, "50 ms each way between nodes")
}

// onHost is the address with another host and the same port.
func onHost(t *testing.T, host, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(host, port)
}

// argument is where the value of a flag stands.
func (p *process) argument(flag string) *string { return &p.args[slices.Index(p.args, flag)+1] }

// wipe empties the node's data directory.
func (n *lb) wipe(t *testing.T) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(*n.argument("-data-dir"), "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
}
