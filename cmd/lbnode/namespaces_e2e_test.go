package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lbnode/cluster/admin"
)

// host is a network namespace with an address of its own on a common bridge.
type host struct {
	t         *testing.T
	namespace string
	hub       string // namespace of the bridge
	cable     string // the end of its link at the bridge
	addr      string
}

// network makes count hosts that reach one another by real addresses, and
// removes all of it when the test ends. Networks do not reach one another, so all
// have the same addresses.
func network(t *testing.T, count int) []*host {
	t.Helper()
	hosts := bareHosts(t, count)
	for _, h := range hosts {
		h.give(h.addr)
	}
	return hosts
}

// bareHosts makes hosts that have no address yet but the loopback one.
func bareHosts(t *testing.T, count int) []*host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip, from iproute2")
	}
	id := fmt.Sprintf("lbt%d-%d", os.Getpid(), rand.IntN(1e6))
	hub := id + "-hub"
	ip(t, "netns", "add", hub)
	t.Cleanup(func() { exec.Command("ip", "netns", "delete", hub).Run() })
	ip(t, "-n", hub, "link", "add", "hub0", "type", "bridge")
	ip(t, "-n", hub, "link", "set", "hub0", "up")
	hosts := make([]*host, count)
	for i := range hosts {
		h := &host{t: t, hub: hub, namespace: fmt.Sprintf("%s-%d", id, i+1), cable: fmt.Sprintf("cable%d", i+1), addr: fmt.Sprintf("10.77.0.%d", i+1)}
		ip(t, "netns", "add", h.namespace)
		t.Cleanup(func() { exec.Command("ip", "netns", "delete", h.namespace).Run() })
		ip(t, "-n", hub, "link", "add", h.cable, "type", "veth", "peer", "name", "eth0", "netns", h.namespace)
		ip(t, "-n", hub, "link", "set", h.cable, "master", "hub0", "up")
		ip(t, "-n", h.namespace, "link", "set", "lo", "up")
		hosts[i] = h
	}
	return hosts
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// give has the host be at an address, and at no other on its network.
func (h *host) give(addr string) {
	h.t.Helper()
	h.take()
	ip(h.t, "-n", h.namespace, "addr", "add", addr+"/24", "dev", "eth0")
	ip(h.t, "-n", h.namespace, "link", "set", "eth0", "up")
	h.addr = addr
}

// take takes its address away from the host.
func (h *host) take() {
	h.t.Helper()
	ip(h.t, "-n", h.namespace, "addr", "flush", "dev", "eth0")
}

// inside is the command that runs another one on the host.
func (h *host) inside() []string { return []string{"ip", "netns", "exec", h.namespace} }

// plug connects or disconnects the host. Packets are lost without a word, as
// with a pulled cable.
func (h *host) plug(in bool) {
	ip(h.t, "-n", h.hub, "link", "set", h.cable, map[bool]string{true: "up", false: "down"}[in])
}

// command is lbnode with these arguments, on the host.
func (h *host) command(args ...string) *exec.Cmd {
	cmd := exec.Command("ip", append([]string{"netns", "exec", h.namespace, os.Args[0]}, args...)...)
	cmd.Env = append(os.Environ(), runMain+"=1")
	return cmd
}

// daemon starts lbnode on the host and keeps it until the test ends.
func (h *host) daemon(name string, args ...string) {
	h.t.Helper()
	path := filepath.Join(h.t.TempDir(), name+".log")
	out, err := os.Create(path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer out.Close()
	cmd := h.command(args...) // ip becomes what it executes, so the process is lbnode
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if text, err := os.ReadFile(path); err == nil && h.t.Failed() {
			h.t.Logf("%s printed:\n%s", name, lastLines(text, 40))
		}
	})
}

// status is what `lbnode status` says on the host; nil if it cannot.
func (h *host) status() *admin.ClusterView {
	out, err := h.command("status", "-o", "json").Output()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 3) {
		return nil
	}
	v := &admin.ClusterView{}
	if err := json.Unmarshal(out, v); err != nil {
		h.t.Fatalf("status on %s is no JSON: %v\n%s", h.addr, err, out)
	}
	return v
}

// get fetches the traffic port of the host from the host itself.
func (h *host) get() (string, error) {
	out, err := exec.Command("ip", "netns", "exec", h.namespace, "curl", "-sf", "-m", "5", "http://127.0.0.1:8080/").Output()
	return string(out), err
}

// Three hosts with real addresses, default ports, a secret and one command; one
// of them loses its network and gets it back.
func TestNamespacesPartition(t *testing.T) {
	t.Parallel()
	hosts := network(t, 3)
	secret := filepath.Join(t.TempDir(), "secret")
	text, err := hosts[0].command("keygen").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, h := range hosts {
		name := fmt.Sprintf("lb%d", i+1)
		h.daemon(name, "-node", name, "-join", "10.77.0.1,10.77.0.2,10.77.0.3", "-secret", secret, "-data-dir", t.TempDir())
	}
	allSee := func(what string, within time.Duration, ok func(*admin.ClusterView) bool, by ...*host) {
		t.Helper()
		took := eventually(t, within, what, func() bool {
			for _, h := range by {
				if v := h.status(); v == nil || !ok(v) {
					return false
				}
			}
			return true
		})
		t.Logf("%s: %s", what, took.Round(time.Millisecond))
	}
	allSee("three hosts are one cluster", 30*time.Second, func(v *admin.ClusterView) bool { return v.Healthy && len(v.Nodes) == 3 }, hosts...)
	for _, n := range hosts[0].status().Nodes {
		if want := "10.77.0." + n.Name[2:] + ":7946"; n.Addr != want {
			t.Errorf("%s advertises %s, want %s", n.Name, n.Addr, want)
		}
	}

	for i, h := range []*host{hosts[0], hosts[2]} { // a backend on either side of the partition to come
		name := fmt.Sprintf("web-%d", i+1)
		h.daemon(name, "demo", "backend", name, h.addr+":9000")
		if out, err := hosts[1].command("backend", "add", name, "http://"+h.addr+":9000").CombinedOutput(); err != nil {
			t.Fatalf("cannot add %s: %v: %s", name, err, out)
		}
	}
	allSee("both backends are healthy", 10*time.Second, healthOf("web-1", "healthy", "web-2", "healthy"), hosts...)

	lost := hosts[2]
	lost.plug(false)
	allSee("the majority gives up the lost node and its backend", 30*time.Second, func(v *admin.ClusterView) bool {
		return v.Leader != "" && v.Leader != "lb3" && status(v, "lb3") == "failed" && healthOf("web-1", "healthy", "web-2", "unhealthy")(v)
	}, hosts[:2]...)
	allSee("the lost node says that it is degraded", 30*time.Second, func(v *admin.ClusterView) bool {
		return v.Degraded != "" && v.Leader == ""
	}, lost)
	for range 10 {
		for _, h := range hosts {
			want := "Hello from web-1"
			if h == lost {
				want = "Hello from web-2" // it trusts its own probes, not the verdict
			}
			if got, err := h.get(); err != nil || !strings.HasPrefix(got, want) {
				t.Errorf("%s: got %q, %v, want %q", h.addr, got, err, want)
			}
		}
	}

	lost.plug(true)
	allSee("one cluster and one view again", 60*time.Second, func(v *admin.ClusterView) bool {
		return v.Healthy && v.Agreement && healthOf("web-1", "healthy", "web-2", "healthy")(v)
	}, hosts...)
}

// healthOf says whether the backends, given as name and health in turn, have
// these healths.
func healthOf(want ...string) func(*admin.ClusterView) bool {
	return func(v *admin.ClusterView) bool {
		found := 0
		for _, p := range v.Pools {
			for _, b := range p.Backends {
				for i := 0; i < len(want); i += 2 {
					if b.Name == want[i] && string(b.Health) == want[i+1] {
						found++
					}
				}
			}
		}
		return 2*found == len(want)
	}
}
