package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lbnode/cluster/admin"
)

// site is three servers as deploy/README.md makes them: lb1 to lb3 at 10.0.0.1 to
// 10.0.0.3, with lbnode under systemctl, and two web servers. Each is a network
// namespace with default ports and a mount namespace with its own /etc, /var/lib and
// /usr/bin.
type site struct {
	t        *testing.T
	hub      string // the namespace of the bridge and of the web servers
	machines []*machine
}

// machine is one server of a site.
type machine struct {
	t         *testing.T
	name      string
	namespace string
	dir       string // what of it is seen from outside: home, lbnode.log
	pid       int    // of the process that holds its namespaces
}

func newSite(t *testing.T) *site {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make namespaces")
	}
	for _, tool := range []string{"ip", "unshare", "nsenter", "setpriv", "bash"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	prefix := fmt.Sprintf("lbr%d-", rand.IntN(1_000_000_000)) // sites of several tests are there at once
	s := &site{t: t, hub: prefix + "hub"}
	addNamespace(t, s.hub)
	ip(t, "-n", s.hub, "link", "add", "hub0", "type", "bridge")
	ip(t, "-n", s.hub, "link", "set", "hub0", "up")
	ip(t, "-n", s.hub, "link", "set", "lo", "up")
	for i := range 2 {
		s.startWeb(i + 1)
	}
	dir := t.TempDir()
	for i := range 3 {
		m := &machine{t: t, name: fmt.Sprintf("lb%d", i+1), namespace: prefix + strconv.Itoa(i+1)}
		m.dir = filepath.Join(dir, m.name)
		s.machines = append(s.machines, m)
		addNamespace(t, m.namespace)
		ip(t, "-n", s.hub, "link", "add", m.name, "type", "veth", "peer", "name", "eth0", "netns", m.namespace)
		ip(t, "-n", s.hub, "link", "set", m.name, "master", "hub0", "up")
		ip(t, "-n", m.namespace, "addr", "add", fmt.Sprintf("10.0.0.%d/16", i+1), "dev", "eth0")
		ip(t, "-n", m.namespace, "link", "set", "eth0", "up")
		ip(t, "-n", m.namespace, "link", "set", "lo", "up")
		m.boot()
	}
	return s
}

func addNamespace(t *testing.T, name string) {
	t.Helper()
	ip(t, "netns", "add", name)
	t.Cleanup(func() { exec.Command("ip", "netns", "delete", name).Run() })
}

// startWeb runs a web server at 10.0.0.11 or 10.0.0.12.
func (s *site) startWeb(n int) {
	s.t.Helper()
	addr := fmt.Sprintf("10.0.0.%d", 10+n)
	ip(s.t, "-n", s.hub, "addr", "add", addr+"/16", "dev", "hub0")
	cmd := exec.Command("ip", "netns", "exec", s.hub, os.Args[0], "demo", "backend", fmt.Sprintf("web%d", n), addr+":8080")
	cmd.Env = append(os.Environ(), runMain+"=1")
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

// boot makes the machine's mount namespace, with lbnode installed but not configured.
func (m *machine) boot() {
	m.t.Helper()
	tools, err := filepath.Abs("testdata/machine")
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(m.dir, "home"), 0o700); err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", m.namespace, "unshare", "--mount", "--uts", "--propagation", "private",
		filepath.Join(tools, "setup"), tools, os.Args[0], m.dir) // each becomes what it executes
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.pid = cmd.Process.Pid
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	m.t.Cleanup(func() {
		m.crash()
		cmd.Process.Kill()
		<-ended
		if text, err := os.ReadFile(filepath.Join(m.dir, "lbnode.log")); err == nil && m.t.Failed() {
			m.t.Logf("%s printed:\n%s", m.name, lastLines(text, 30))
		}
	})
	eventually(m.t, 30*time.Second, m.name+" is set up", func() bool {
		select {
		case <-ended:
			m.t.Skipf("cannot make a mount namespace: %s", &said)
		default:
		}
		_, err := os.Stat(filepath.Join(m.dir, "ready"))
		return err == nil
	})
}

// path is where a file of the machine is seen from outside.
func (m *machine) path(name string) string { return fmt.Sprintf("/proc/%d/root%s", m.pid, name) }

// crash ends lbnode on the machine as a power cut does.
func (m *machine) crash() {
	text, err := os.ReadFile(m.path("/mnt/lbnode.pid"))
	if err != nil {
		return // never started
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	os.Remove(m.path("/mnt/lbnode.pid"))
}

// wipe ends the machine and sets up a new one in its place.
func (m *machine) wipe() {
	m.t.Helper()
	m.crash()
	for _, dir := range []string{"/var/lib/lbnode", "/etc/lbnode"} {
		if err := os.RemoveAll(m.path(dir)); err != nil {
			m.t.Fatal(err)
		}
	}
}

// run executes shell commands on the machine, as somebody would who logged in, and
// returns what they printed and their exit code.
func (m *machine) run(ctx context.Context, commands string) (string, int) {
	m.t.Helper()
	cmd := exec.CommandContext(ctx, "nsenter", "-t", strconv.Itoa(m.pid), "--mount", "--uts", "--net",
		"env", "-i", "HOME="+filepath.Join(m.dir, "home"), "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"bash", "-euo", "pipefail", "-c", "cd\n"+commands)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatalf("%s: %v", m.name, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// must runs commands that prepare a test.
func (m *machine) must(commands string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	if out, code := m.run(ctx, commands); code != 0 {
		m.t.Fatalf("%s: exit code %d of %s:\n%s", m.name, code, commands, out)
	}
}

// status is /cluster as the machine shows it, nil if it does not.
func (m *machine) status() *admin.ClusterView {
	ctx, cancel := context.WithTimeout(m.t.Context(), 10*time.Second)
	defer cancel()
	out, code := m.run(ctx, "lbnode status -o json 2>/dev/null")
	v := &admin.ClusterView{}
	if code != 0 && code != 3 || json.Unmarshal([]byte(out), v) != nil {
		return nil
	}
	return v
}

// form installs lbnode as deploy/README.md says and waits for a healthy cluster with
// two backends.
func (s *site) form() {
	s.t.Helper()
	secret, err := exec.Command("sh", "-c", runMain+"=1 "+os.Args[0]+" keygen").Output()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, m := range s.machines {
		m.must(fmt.Sprintf("install -D -m 644 /dev/null /etc/lbnode/lbnode.env\n"+
			"printf 'LBNODE_JOIN=10.0.0.1,10.0.0.2,10.0.0.3\\nLBNODE_SECRET=/etc/lbnode/secret\\n' >/etc/lbnode/lbnode.env\n"+
			"printf '%s' >secret; install -m 640 -o root -g lbnode secret /etc/lbnode/secret; rm secret; systemctl enable --now lbnode", secret))
	}
	s.await("three machines are a cluster", s.machines, func(v *admin.ClusterView) bool { return v.Healthy && v.FailureTolerance == 1 })
	s.machines[0].must("lbnode backend add web1 http://10.0.0.11:8080; lbnode backend add web2 http://10.0.0.12:8080; lbnode route add shop.example/cart default")
	s.await("the backends are healthy", s.machines, wellWith(2))
}

// await waits until all machines show what is wanted.
func (s *site) await(what string, machines []*machine, ok func(*admin.ClusterView) bool) {
	s.t.Helper()
	eventually(s.t, 90*time.Second, what, func() bool {
		for _, m := range machines {
			if v := m.status(); v == nil || !ok(v) {
				return false
			}
		}
		return true
	})
}

// wellWith says whether the cluster is healthy, with so many healthy backends.
func wellWith(backends int) func(*admin.ClusterView) bool {
	return func(v *admin.ClusterView) bool {
		healthy := 0
		for _, p := range v.Pools {
			healthy += p.HealthyBackends
		}
		return v.Healthy && v.Agreement && v.FailureTolerance == 1 && len(v.Nodes) == 3 && healthy == backends
	}
}
