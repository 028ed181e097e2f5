//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lbnode/cluster/admin"
	"lbnode/state"
)

// given is the value of a flag that a process is started with.
func (p *process) given(flag string) string { return p.args[slices.Index(p.args, flag)+1] }

// fallSilent opens so many connections to an address, over which nothing is sent.
func fallSilent(t *testing.T, addr string, count int) {
	t.Helper()
	for range count {
		conn, err := net.DialTimeout("tcp", addr, 30*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
}

// files is how many files a process has open.
func (p *process) files() int {
	p.t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	return len(open)
}

// Silent connections of strangers to one of the addresses of a node with few files: it
// serves traffic, takes writes, saves its view, and is a member like the others.
func TestSilentConnectionsHarmNobody(t *testing.T) {
	secret, tokens := filepath.Join(t.TempDir(), "secret"), filepath.Join(t.TempDir(), "token")
	const token = "0123456789abcdef0123456789abcdef"
	for file, text := range map[string]string{secret: mustRun(t, "keygen"), tokens: token} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for flag, secured := range map[string][]string{
		"-admin": {"-admin-token-file", tokens}, "-bind": {"-secret", secret}, "-raft": {"-secret", secret}, "-raft ": nil,
	} {
		flag, name := strings.TrimSpace(flag), fmt.Sprint(flag, len(secured) > 0)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := newLBs(t, 3, secured...)
			nodes[0].withFiles(1024)
			for _, n := range nodes {
				if flag == "-admin" {
					n.client = admin.NewClient(n.admin, token)
				}
			}
			backend, addr := newBackend(t, "web-1")
			backend.start()
			startAll(nodes)
			eventually(t, 60*time.Second, "they agree", func() bool {
				return every(nodes, func(n *lb) bool { v := n.view(); return v != nil && v.Healthy })
			})
			n := nodes[0]
			addBackend(t, n, "web-1", addr)
			serves := func() bool { return statusOf(t, "http://"+n.http) == http.StatusOK }
			eventually(t, 30*time.Second, "it serves", serves)

			fallSilent(t, n.given(flag), 1200)
			most := 0
			for i := range 60 {
				most = max(most, n.files())
				client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
				if _, err := fetch(client, "http://"+n.http); err != nil {
					t.Fatalf("request %d of 60: %v", i+1, err)
				}
			}
			if most > 512 {
				t.Errorf("it had up to %d of 1,024 files open, want half of them free", most)
			}
			addBackend(t, n, "web-2", "127.0.0.1:1")
			eventually(t, 30*time.Second, "all have the change", func() bool {
				want := n.digest()
				return want != "" && every(nodes, func(other *lb) bool { return other.digest() == want })
			})
			index := own(n.view()).View.Index
			eventually(t, 30*time.Second, "the view is saved", func() bool { return savedIndex(t, n) >= index })
			if v := nodes[1].view(); v == nil || !v.Healthy {
				t.Errorf("the other nodes find it unwell: %+v", v)
			}
		})
	}
}

func addBackend(t *testing.T, n *lb, name, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := n.client.AddBackend(ctx, state.DefaultPool, admin.BackendSpec{Name: name, URL: "http://" + addr}); err != nil {
		t.Fatal(err)
	}
}

// savedIndex is the index of the view that a node has on disk, 0 if there is none.
func savedIndex(t *testing.T, n *lb) uint64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.given("-data-dir"), "view.json"))
	if err != nil {
		return 0
	}
	var saved struct{ Index uint64 }
	if err := json.Unmarshal(text, &saved); err != nil {
		t.Fatal(err)
	}
	return saved.Index
}
