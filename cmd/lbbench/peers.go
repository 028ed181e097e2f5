//go:build linux

package main

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"text/template"
	"time"
)

//go:embed templates
var templates embed.FS

// place is where a proxy under test lives; the templates are filled from it.
type place struct {
	Dir     string // its own, removed afterwards
	Port    int    // of Listen
	Listen  string // address for traffic
	Admin   string // addresses that only lbnode needs
	Gossip  string
	Raft    string
	Backend string // address that it forwards to
	Files   uint64 // how many it may open
	program string // path of what is to be run
	config  string // path of the filled template
}

// peer is one way to run a proxy.
type peer struct {
	name     string
	program  string // empty: lbbench itself
	install  string // how to get the program
	only     string // the one case that it is for; empty: all
	onDemand bool   // measured only if it is named
	template string // empty: it needs no file
	env      []string
	args     func(p place) []string
	check    func(p place) []string // what says whether the file is accepted; nil: nothing does
	version  []string               // arguments that print it
}

// subject is what all others are compared with.
const subject = "lbnode"

// allPeers are the subject and those it is compared with. Go programs get one
// thread for Go code, as they have one core.
func allPeers() []peer {
	oneCore := []string{"GOMAXPROCS=1"}
	nginx := peer{
		name: "nginx", program: "nginx", install: "apt-get install nginx-light", template: "nginx.conf", version: []string{"-v"},
		args:  func(p place) []string { return []string{"-e", p.Dir + "/nginx.err", "-c", p.config} },
		check: func(p place) []string { return []string{"-e", p.Dir + "/nginx.err", "-t", "-c", p.config} },
	}
	defaults := nginx
	defaults.name, defaults.template, defaults.only = "nginx-defaults", "nginx-defaults.conf", "large"
	return []peer{
		{name: subject, program: subject, install: "go build ./cmd/lbnode", env: oneCore, args: lbnodeArgs, version: []string{"version"}},
		{
			name: "before", program: "lbnode-before", install: "build another version of lbnode under this name, in a directory of PATH",
			onDemand: true, env: oneCore, args: lbnodeArgs, version: []string{"version"},
		},
		nginx,
		defaults,
		{
			name: "haproxy", program: "haproxy", install: "apt-get install haproxy", template: "haproxy.cfg", version: []string{"-v"},
			args:  func(p place) []string { return []string{"-db", "-f", p.config} },
			check: func(p place) []string { return []string{"-c", "-f", p.config} },
		},
		{
			name: "caddy", program: "caddy", install: "apt-get install caddy", template: "Caddyfile", version: []string{"version"}, env: oneCore,
			args:  func(p place) []string { return []string{"run", "--adapter", "caddyfile", "--config", p.config} },
			check: func(p place) []string { return []string{"validate", "--adapter", "caddyfile", "--config", p.config} },
		},
		{
			name: "reverseproxy", env: oneCore,
			args: func(p place) []string {
				return []string{"part-reverseproxy", "-listen", p.Listen, "-backend", "http://" + p.Backend}
			},
		},
	}
}

func lbnodeArgs(p place) []string {
	return []string{"-http", p.Listen, "-admin", p.Admin, "-bind", p.Gossip, "-raft", p.Raft,
		"-data-dir", p.Dir, "-backend", "http://" + p.Backend, "-log-level", "warn",
		// The others have no room for connections to backends set aside.
		"-max-connections", strconv.FormatUint(p.Files, 10)}
}

// peerNames are those that lbnode can be measured against.
func peerNames() []string {
	var names []string
	for _, p := range allPeers() {
		if p.name != subject {
			names = append(names, p.name)
		}
	}
	return names
}

// usualPeers are the names of those that are measured if none is named.
func usualPeers() []string {
	var names []string
	for _, p := range allPeers() {
		if p.name != subject && !p.onDemand {
			names = append(names, p.name)
		}
	}
	return names
}

// find returns the path of the peer's program.
func (p peer) find() (string, error) {
	if p.program == "" {
		return os.Executable()
	}
	path, err := exec.LookPath(p.program)
	if err != nil { // daemons are in directories that only root has in its path
		path, err = exec.LookPath("/usr/sbin/" + p.program)
	}
	if err != nil {
		return "", fmt.Errorf("%s is not there; to have it: %s", p.name, p.install)
	}
	return path, nil
}

// describe returns the first line of what the program says its version is.
func (p peer) describe(path string) string {
	if p.program == "" {
		return "net/http of " + runtime.Version()
	}
	text, err := exec.Command(path, p.version...).CombinedOutput()
	if err != nil {
		return "unknown version: " + err.Error()
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimPrefix(line, "nginx version: ")
}

// configure fills the peer's template.
func (p peer) configure(at *place) error {
	if p.template == "" {
		return nil
	}
	t, err := template.ParseFS(templates, "templates/"+p.template)
	if err != nil {
		return fmt.Errorf("cannot configure %s: %w", p.name, err)
	}
	var text bytes.Buffer
	if err := t.Execute(&text, at); err != nil {
		return fmt.Errorf("cannot configure %s: %w", p.name, err)
	}
	at.config = filepath.Join(at.Dir, p.template)
	if err := os.WriteFile(at.config, text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("cannot configure %s: %w", p.name, err)
	}
	return nil
}

// proxy is a peer that runs.
type proxy struct {
	peer
	place
	process *process
}

// start runs the peer on the core and waits until it forwards.
func (p peer) start(ctx context.Context, at place, core int) (*proxy, error) {
	if err := p.configure(&at); err != nil {
		return nil, err
	}
	env := append([]string{"HOME=" + at.Dir, "XDG_CONFIG_HOME=" + at.Dir, "XDG_DATA_HOME=" + at.Dir}, p.env...)
	run, err := startProcess(at.Dir, p.name, core, env, append([]string{at.program}, p.args(at)...)...)
	if err != nil {
		return nil, err
	}
	err = run.awaitReady(ctx, func() error { return probe(ctx, at.Listen) })
	if err != nil {
		run.stop()
		return nil, err
	}
	return &proxy{peer: p, place: at, process: run}, nil
}

// probe asks for each of the backend's answers and says what is wrong with them.
func probe(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	for _, path := range []string{pathSmall, pathMedium, pathLarge} {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK || n != int64(bodySize(path)) {
			return fmt.Errorf("GET %s: got status %d and %d bytes, want 200 and %d", path, response.StatusCode, n, bodySize(path))
		}
	}
	return nil
}

// freeAddresses returns addresses on loopback that nobody listens on. All are
// held until the last is found, so they differ.
func freeAddresses(n int) ([]string, error) {
	var free []string
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("cannot find a free port: %w", err)
		}
		defer l.Close()
		free = append(free, l.Addr().String())
	}
	return free, nil
}

// portOf returns the port of an address.
func portOf(address string) int {
	_, port, _ := net.SplitHostPort(address)
	n, _ := strconv.Atoi(port)
	return n
}
