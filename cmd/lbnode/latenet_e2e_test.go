package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lbnode/cluster/admin"
)

// node prepares lbnode on the host, with default ports.
func (h *host) node(name string, args ...string) *process {
	p := newProcess(h.t, name, append([]string{"-node", name, "-data-dir", h.t.TempDir()}, args...)...)
	p.under = h.inside()
	return p
}

// printed is all that a process has printed.
func printed(t testing.TB, p *process) string {
	t.Helper()
	text, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// oneCluster says whether all hosts show one healthy cluster of all of them, each at its
// address.
func oneCluster(hosts []*host) bool {
	var id string
	for _, h := range hosts {
		v := h.status()
		if v == nil || !v.Healthy || len(v.Nodes) != len(hosts) || v.FailureTolerance != (len(hosts)-1)/2 || id != "" && v.ClusterID != id {
			return false
		}
		id = v.ClusterID
		for _, h := range hosts {
			if !slices.ContainsFunc(v.Nodes, func(n admin.Node) bool { return n.Addr == h.addr+":7946" }) {
				return false
			}
		}
	}
	return true
}

// Machines get their addresses when lbnode runs already: at the first start, after a reboot,
// and others later. A node says that it waits, serves what it kept meanwhile, and is where its
// machine is.
func TestNetworkComesLate(t *testing.T) {
	t.Parallel()
	hosts, secret := bareHosts(t, 3), newSecret(t)
	nodes := make([]*process, len(hosts))
	for i, h := range hosts {
		nodes[i] = h.node(fmt.Sprintf("lb%d", i+1), "-join", "10.77.0.1,10.77.0.2,10.77.0.3", "-secret", secret)
		nodes[i].start()
	}
	for _, p := range nodes {
		eventually(t, time.Minute, p.name+" says what it waits for", func() bool {
			return strings.Contains(printed(t, p), "waiting for a network: this machine has no route to any other")
		})
	}
	for _, i := range rand.Perm(3) {
		hosts[i].give(fmt.Sprintf("10.77.0.%d", i+1))
	}
	took := eventually(t, 90*time.Second, "three hosts are one cluster", func() bool { return oneCluster(hosts) })
	t.Logf("one cluster %s after the last address", took.Round(time.Millisecond))
	hosts[0].daemon("web-1", "demo", "backend", "web-1", "10.77.0.1:9000")
	if out, err := hosts[1].command("backend", "add", "web-1", "http://10.77.0.1:9000").CombinedOutput(); err != nil {
		t.Fatalf("cannot add a backend: %v: %s", err, out)
	}
	eventually(t, time.Minute, "the backend is healthy everywhere", func() bool {
		return !slices.ContainsFunc(hosts, func(h *host) bool { v := h.status(); return v == nil || !healthOf("web-1", "healthy")(v) })
	})

	rebooted := hosts[2]
	nodes[2].signal(syscall.SIGTERM)
	rebooted.take()
	nodes[2].start()
	eventually(t, time.Minute, "it serves the view that it kept without a network", func() bool {
		v := rebooted.status()
		return v != nil && len(v.Pools) == 1 && own(v).Ready
	})
	eventually(t, time.Minute, "it says what is missing", func() bool {
		return strings.Contains(printed(t, nodes[2]), "waiting for a leader: this machine has no route to any other; 1 of 3 voters are alive")
	})
	rebooted.give("10.77.0.3")
	took = eventually(t, 90*time.Second, "the rebooted host is back", func() bool { return oneCluster(hosts) })
	t.Logf("back %s after its address", took.Round(time.Millisecond))

	for n, h := range []*host{hosts[1], hosts[0]} { // the leader may be one of the two
		h.give(fmt.Sprintf("10.77.0.%d", 20+n))
		took = eventually(t, 90*time.Second, "a host with another lease is there", func() bool { return oneCluster(hosts) })
		t.Logf("at another address after %s", took.Round(time.Millisecond))
	}
}

// A machine without a network is a cluster of one at once, where nobody else is meant.
func TestOneNodeNeedsNoNetwork(t *testing.T) {
	t.Parallel()
	h := bareHosts(t, 1)[0]
	p := h.node("lb1", "-secret", newSecret(t))
	p.start()
	eventually(t, time.Minute, "it is a cluster", func() bool { v := h.status(); return v != nil && v.Healthy })
	if got := own(h.status()).Addr; got != "127.0.0.1:7946" {
		t.Errorf("got address %s without a network, want loopback's", got)
	}
	h.give("10.77.0.1")
	ip(t, "-n", h.namespace, "route", "add", "default", "via", "10.77.0.254")
	eventually(t, time.Minute, "it is where its machine is", func() bool { return oneCluster([]*host{h}) })
}

// Names resolve when nodes run already, on machines whose default route leads elsewhere than
// to the other nodes.
func TestNamesResolveLate(t *testing.T) {
	t.Parallel()
	hosts, secret := network(t, 3), newSecret(t)
	resolvers, nodes := make([]*resolver, len(hosts)), make([]*process, len(hosts))
	for i, h := range hosts {
		ip(t, "-n", h.namespace, "link", "add", "other0", "type", "veth", "peer", "name", "other1")
		ip(t, "-n", h.namespace, "link", "set", "other1", "up")
		ip(t, "-n", h.namespace, "addr", "add", fmt.Sprintf("10.99.0.%d/24", i+1), "dev", "other0")
		ip(t, "-n", h.namespace, "link", "set", "other0", "up")
		ip(t, "-n", h.namespace, "route", "add", "default", "via", "10.99.0.254")
		resolvers[i] = newResolver(h)
		nodes[i] = h.node(fmt.Sprintf("lb%d", i+1), "-join", "lb1.test,lb2.test,lb3.test", "-secret", secret)
		nodes[i].under = append(nodes[i].under, resolvers[i].under()...)
		nodes[i].start()
	}
	for _, p := range nodes {
		eventually(t, time.Minute, p.name+" says what it waits for", func() bool {
			return strings.Contains(printed(t, p), "waiting for 3 of 3: lb1.test:7946 does not resolve")
		})
	}
	all := []string{"lb1.test 10.77.0.1", "lb2.test 10.77.0.2", "lb3.test 10.77.0.3"}
	for _, i := range rand.Perm(3) {
		resolvers[i].knows(all...)
	}
	took := eventually(t, 90*time.Second, "three hosts are one cluster", func() bool { return oneCluster(hosts) })
	t.Logf("one cluster %s after the last name", took.Round(time.Millisecond))

	restarted := hosts[2]
	fastest := time.Hour
	for range 3 {
		resolvers[2].silence()
		nodes[2].signal(syscall.SIGTERM)
		nodes[2].start()
		fastest = min(fastest, eventually(t, time.Minute, "it serves the view that it kept without DNS", func() bool {
			v := restarted.status()
			return v != nil && own(v).Ready
		}))
		eventually(t, 90*time.Second, "it is back without DNS", func() bool { return oneCluster(hosts) })
		resolvers[2].knows(all...)
	}
	t.Logf("serves again after %s with a silent resolver", fastest.Round(time.Millisecond))
	if fastest >= 5*time.Second {
		t.Errorf("got an answer after %s, want it before a resolver is given up", fastest)
	}
}
