package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// refused runs lbnode and expects it to end by itself, with the code, one line
// that holds all the words, and nothing else on its way out.
func refused(t *testing.T, code int, words []string, args ...string) {
	t.Helper()
	refusedWithin(t, 10*time.Second, code, words, args...)
}

func refusedWithin(t *testing.T, within time.Duration, code int, words []string, args ...string) {
	t.Helper()
	p := newProcess(t, "lbnode", args...)
	p.start()
	got, out := p.exit(within)
	if got != code {
		t.Errorf("lbnode %v: got exit code %d, want %d:\n%s", args, got, code, out)
	}
	var complaint []string
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "lbnode: ") {
			complaint = append(complaint, line)
		}
	}
	if len(complaint) != 1 {
		t.Fatalf("lbnode %v: got %d lines of complaint, want 1:\n%s", args, len(complaint), out)
	}
	for _, word := range words {
		if !strings.Contains(complaint[0], word) {
			t.Errorf("lbnode %v: %q does not say %q", args, complaint[0], word)
		}
	}
}

func TestBadCommandLine(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "lbnode.conf")
	if err := os.WriteFile(file, []byte("htp :80\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args  []string
		words []string
	}{
		{[]string{"-jion", "a"}, []string{"-jion", `"join"`}},
		{[]string{"memebrs"}, []string{"memebrs", `"members"`}},
		{[]string{"-config", file}, []string{"htp", `"http"`}},
		{[]string{"-raft-multiplier", "many"}, []string{"raft-multiplier", "many"}},
		{[]string{"-log-level", "loud"}, []string{"log-level", "loud"}},
		{[]string{"-log-format", "xml"}, []string{"log-format", "xml"}},
		{[]string{"-join", "a,,b"}, []string{"join", "empty"}},
		{[]string{"-join", "a", "b"}, []string{`"b"`}},
		{[]string{"-backend", "http://10.0.0.1", "-backend", "http://10.0.0.1:80"}, []string{"-backend", "twice"}},
		{[]string{"-backend", "10.0.0.1:80"}, []string{"-backend", "10.0.0.1:80"}},
		{[]string{"backend", "ad"}, []string{"ad", `"add"`}},
		{[]string{"status", "-o", "xml"}, []string{"xml"}},
		{[]string{"status", "-admin", "https://10.0.0.1:8404"}, []string{"-admin", "https://10.0.0.1:8404"}},
	} {
		refused(t, 64, test.words, test.args...)
	}
}

func TestBadSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	blocked := filepath.Join(dir, "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	local := func(more ...string) []string {
		return append([]string{"-data-dir", filepath.Join(dir, "data"), "-bind", freeAddr(t), "-raft", freeAddr(t), "-http", freeAddr(t), "-admin", freeAddr(t)}, more...)
	}
	for _, test := range []struct {
		code  int
		args  []string
		words []string
	}{
		{64, local("-bind", "300.1.1.1:1"), []string{"-bind", "300.1.1.1"}},
		{64, local("-bind", "127.0.0.1"), []string{"-bind", "127.0.0.1"}},
		{64, local("-join", "10.0.0.1:99999"), []string{"-join", "99999"}},
		{64, local("-join", "a b"), []string{"-join", `"a b"`}},
		{64, local("-advertise", "lb1"), []string{"-advertise", "lb1"}},
		{64, local("-http", "nowhere"), []string{"nowhere", "-http"}},
		{64, local("-bind", "0.0.0.0:0"), []string{"-secret", "-insecure"}},
		{1, local("-secret", filepath.Join(dir, "none")), []string{"none", "keygen"}},
		{1, local("-data-dir", filepath.Join(blocked, "data")), []string{"data directory", "-data-dir"}},
		{64, local("-admin", "0.0.0.0:0"), []string{"-admin", "-admin-token-file"}},
		{64, local("-trusted-proxies", "10.0.0.0/24,lb1"), []string{"-trusted-proxies", "lb1"}},
		{64, local("-proxy-protocol", "10.0.0.0/40"), []string{"-proxy-protocol", "10.0.0.0/40"}},
		{64, local("-max-connections", "-1"), []string{"-max-connections", "below 0"}},
		{64, local("-max-connections-per-client", "-1"), []string{"-max-connections-per-client", "below 0"}},
		{1, local("-access-log", filepath.Join(dir, "none", "access.log")), []string{"-access-log", "none"}},
		{64, local("-node", "a b"), []string{"-node", "a b"}},
	} {
		refused(t, test.code, test.words, test.args...)
	}
}

// A misspelt variable would found a cluster of one; others are a platform's own.
func TestMisspeltEnvironment(t *testing.T) {
	t.Setenv("LBNODE_SERVICE_HOST", "10.0.0.1")
	if _, err := parseFlags(nil); err != nil {
		t.Errorf("got %v for a variable that is like no flag", err)
	}
	t.Setenv("LBNODE_JION", "10.0.0.1")
	if _, err := parseFlags(nil); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), "LBNODE_JOIN") {
		t.Errorf("got %v, want the misspelt variable refused", err)
	}
}

// An empty variable is refused where the empty flag is: without LBNODE_JOIN a node would
// found a cluster of one.
func TestEmptyEnvironment(t *testing.T) {
	same := []string{"advertise", "admin-token-file", "secret", "access-log", "config"} // as without them
	newFlagSet(&nodeFlags{}).VisitAll(func(f *flag.Flag) {
		t.Run(f.Name, func(t *testing.T) {
			name := "LBNODE_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
			t.Setenv(name, "")
			_, err := parseFlags(nil)
			if slices.Contains(same, f.Name) {
				if err != nil {
					t.Errorf("got %v for %s, want it to be as if it was not set", err, name)
				}
			} else if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), name+" is set to nothing") {
				t.Errorf("got %v, want %s refused", err, name)
			}
			if _, err := parseFlags([]string{"-" + f.Name + "=" + f.DefValue}); err != nil && f.DefValue != "" && !slices.Contains(same, f.Name) {
				t.Errorf("got %v for the flag beside it, want that to count", err)
			}
		})
	})
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, flag := range []string{"-http", "-admin", "-bind", "-raft"} {
		args := []string{"-data-dir", t.TempDir()}
		for _, other := range []string{"-http", "-admin", "-bind", "-raft"} {
			addr := freeAddr(t)
			if other == flag {
				addr = taken.Addr().String()
			}
			args = append(args, other, addr)
		}
		refused(t, 1, []string{taken.Addr().String(), "in use", flag}, args...)
	}
}

func TestDataDirInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	args := func() []string {
		return []string{"-data-dir", dir, "-bind", freeAddr(t), "-raft", freeAddr(t), "-http", freeAddr(t), "-admin", freeAddr(t)}
	}
	first := newProcess(t, "first", args()...)
	first.start()
	eventually(t, 10*time.Second, "the first node has its identity", func() bool {
		_, err := os.Stat(filepath.Join(dir, "node.json"))
		return err == nil
	})
	refused(t, 1, []string{dir, "in use by another lbnode"}, args()...)
}

func TestDataDirCannotBeWritten(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		// Root writes to any directory but one of a file system that takes no files.
		refused(t, 1, []string{"data directory", "/proc/lbnode"}, "-data-dir", "/proc/lbnode", "-bind", freeAddr(t), "-raft", freeAddr(t))
		return
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	refused(t, 1, []string{"data directory", dir}, "-data-dir", dir, "-bind", freeAddr(t), "-raft", freeAddr(t))
}

func TestDataDirOfAnotherCluster(t *testing.T) {
	t.Parallel()
	one, other := newLBs(t, 1)[0], newLBs(t, 1)[0]
	one.start()
	other.start()
	for _, n := range []*lb{one, other} {
		eventually(t, 20*time.Second, "a cluster of one", func() bool { v := n.view(); return v != nil && v.Healthy })
	}
	theirs := own(one.view()).Addr
	other.kill()
	refused(t, 1, []string{"belongs to cluster", theirs, "-data-dir"}, append(other.args, "-join", theirs)...)
}

func TestJoinListWithoutOwnAddress(t *testing.T) {
	t.Parallel()
	nobody := freeAddr(t)
	dir := t.TempDir()
	refusedWithin(t, 20*time.Second, 1, []string{"-join " + nobody, "own address", "refused"},
		"-join", nobody, "-data-dir", dir, "-bind", freeAddr(t), "-raft", freeAddr(t), "-http", freeAddr(t), "-admin", freeAddr(t))
	if _, err := os.Stat(filepath.Join(dir, "view.json")); err == nil {
		t.Error("a node that never had a cluster left a view behind")
	}
}

// A node that waits says for whom and why, and serves /cluster meanwhile.
func TestWaitingIsExplained(t *testing.T) {
	t.Parallel()
	nodes := newLBs(t, 2)
	nodes[0].start()
	absent := strings.Split(nodes[0].args[5], ",")[1]
	want := fmt.Sprintf("waiting for 1 of 2: %s refused", absent)
	eventually(t, 10*time.Second, "it says for whom it waits", func() bool {
		text, err := os.ReadFile(nodes[0].log)
		return err == nil && strings.Contains(string(text), want)
	})
	eventually(t, 5*time.Second, "/cluster says so too", func() bool {
		v := nodes[0].view()
		return v != nil && v.Degraded == want && !v.Healthy
	})
	if code := statusOf(t, "http://"+nodes[0].admin+"/readyz"); code != 503 {
		t.Errorf("got %d from /readyz, want 503 before there is a view", code)
	}
	if code := statusOf(t, "http://"+nodes[0].http+"/"); code != 503 {
		t.Errorf("got %d for traffic, want 503 before there is a view", code)
	}
	nodes[1].start()
	eventually(t, 20*time.Second, "the two form a cluster", func() bool { v := nodes[0].view(); return v != nil && v.Healthy })
}
