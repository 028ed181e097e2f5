package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lbnode/cluster/admin"
)

// runMain in the environment makes the test binary be lbnode, so that the tests
// run real processes of the very code under test.
const runMain = "LBNODE_TEST_RUN_MAIN"

var long = flag.Bool("long", false, "run the long forms")

func TestMain(m *testing.M) {
	if records := os.Getenv(runDNS); records != "" {
		fmt.Fprintln(os.Stderr, serveDNS(records))
		os.Exit(1)
	}
	if os.Getenv(runMain) != "" {
		main()
	}
	if addrs := os.Getenv(runRelay); addrs != "" {
		relayInherited(strings.Split(addrs, ","))
	}
	flag.Parse()
	if err := setParallel(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// setParallel has twice as many tests run at a time as there are cores, unless -parallel says
// how many: they mostly wait. The long forms, of which the figures count, run alone.
func setParallel() error {
	const name = "test.parallel"
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if given {
		return nil
	}
	return flag.Set(name, strconv.Itoa(amount(2*runtime.NumCPU(), 1)))
}

// freePort returns a port of 127.0.0.1 that is free for TCP and UDP.
func freePort(t testing.TB) int { return freePortOn(t, "127.0.0.1") }

func freeAddr(t testing.TB) string { return freeAddrOn(t, "127.0.0.1") }

func freeAddrOn(t testing.TB, host string) string {
	return net.JoinHostPort(host, strconv.Itoa(freePortOn(t, host)))
}

// freePortOn returns a port that is free on a loopback address. It stays below
// the range from which the system picks ports for clients, so that no connection
// takes it while its owner is down.
func freePortOn(t testing.TB, host string) int {
	t.Helper()
	for range 100 {
		port := 10000 + rand.IntN(20000)
		addr := net.JoinHostPort(host, strconv.Itoa(port))
		tcp, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		udp, err := net.ListenPacket("udp", addr)
		tcp.Close()
		if err != nil {
			continue
		}
		udp.Close()
		return port
	}
	t.Fatal("no free port on ", host)
	return 0
}

// loopback returns a loopback address that nobody else has, so that no other test
// takes a port of a node while it is down. Where there is but one address, it is
// that.
func loopback() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}

// process is a child that runs lbnode with always the same arguments.
type process struct {
	t    testing.TB
	name string
	args []string
	env  []string
	log  string // file with all that it printed

	binary string   // another lbnode than the one under test, if not empty
	under  []string // command that runs it, such as ip netns exec NAME; none if empty
	stdout *os.File // where it prints instead of log, if not nil
	stderr *os.File // the same

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

func newProcess(t testing.TB, name string, args ...string) *process {
	p := &process{t: t, name: name, args: args, log: filepath.Join(t.TempDir(), name+".log")}
	t.Cleanup(func() {
		p.kill()
		if text, err := os.ReadFile(p.log); err == nil && t.Failed() {
			t.Logf("%s printed:\n%s", name, lastLines(text, 40))
		}
	})
	return p
}

// lastLines returns the end of what a process printed, without all but the
// beginning of a crash.
func lastLines(text []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	crashed := slices.IndexFunc(lines, func(l string) bool { return crash.MatchString(l) })
	if crashed >= 0 {
		lines = lines[:min(len(lines), crashed+n/2)]
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// crash is the first line of what the runtime prints when it ends a process.
var crash = regexp.MustCompile(`^(panic: |fatal error: |unexpected fault address |SIG[A-Z]+: )`)

// start starts the process.
func (p *process) start() {
	p.t.Helper()
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer out.Close()
	line := slices.Concat(p.under, []string{cmp.Or(p.binary, os.Args[0])}, p.args)
	p.cmd = exec.Command(line[0], line[1:]...)
	p.cmd.Env = append(append(os.Environ(), runMain+"=1"), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = cmp.Or(p.stdout, out), cmp.Or(p.stderr, out)
	if err := p.cmd.Start(); err != nil {
		p.t.Fatalf("cannot start %s: %v", p.name, err)
	}
	p.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		cmd.Wait()
		close(done)
	}(p.cmd, p.done)
}

// kill ends the process as kill -9 does and waits until it is gone.
func (p *process) kill() { p.signal(syscall.SIGKILL) }

func (p *process) signal(s syscall.Signal) {
	if p.cmd == nil || p.done == nil {
		return
	}
	p.cmd.Process.Signal(s)
	<-p.done
}

// exit waits for the process to end by itself and returns its exit code and
// what it printed.
func (p *process) exit(within time.Duration) (int, string) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		p.t.Fatalf("%s did not end within %s", p.name, within)
	}
	text, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode(), string(text)
}

// lb is a node that runs as a process.
type lb struct {
	*process
	http, admin string // addresses
	client      *admin.Client
}

// newLBs prepares nodes that share one join list.
func newLBs(t testing.TB, count int, more ...string) []*lb {
	var gossip []string
	hosts := make([]string, count)
	for i := range hosts {
		hosts[i] = loopback()
		gossip = append(gossip, freeAddrOn(t, hosts[i]))
	}
	nodes := make([]*lb, count)
	for i := range nodes {
		n := &lb{http: freeAddrOn(t, hosts[i]), admin: freeAddrOn(t, hosts[i])}
		name := fmt.Sprintf("lb%d", i+1)
		n.process = newProcess(t, name, append([]string{
			"-node", name, "-data-dir", t.TempDir(), "-join", strings.Join(gossip, ","),
			"-bind", gossip[i], "-raft", freeAddrOn(t, hosts[i]), "-http", n.http, "-admin", n.admin,
		}, more...)...)
		n.client = admin.NewClient(n.admin, "")
		nodes[i] = n
	}
	return nodes
}

// startAll starts the nodes in random order.
func startAll(nodes []*lb) {
	for _, i := range rand.Perm(len(nodes)) {
		nodes[i].start()
	}
}

// view is /cluster as the node shows it; nil if it does not answer.
func (n *lb) view() *admin.ClusterView {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	v, err := n.client.Cluster(ctx)
	if err != nil {
		return nil
	}
	return v
}

// own is the node's own line in its /cluster.
func own(v *admin.ClusterView) admin.Node {
	if v != nil {
		for _, n := range v.Nodes {
			if n.Name == v.AsSeenBy {
				return n
			}
		}
	}
	return admin.Node{}
}

func (n *lb) digest() string { return own(n.view()).View.Digest }

// health is the committed health of the default pool's backends, by name.
func (n *lb) health() map[string]string {
	healths := map[string]string{}
	if v := n.view(); v != nil {
		for _, p := range v.Pools {
			for _, b := range p.Backends {
				healths[b.Name] = string(b.Health)
			}
		}
	}
	return healths
}

// newBackend prepares a backend process.
func newBackend(t *testing.T, name string) (*process, string) {
	addr := freeAddr(t)
	return newProcess(t, name, "demo", "backend", name, addr), addr
}

// eventually polls until ok holds and returns how long that took.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(began) > within {
			t.Fatalf("not within %s: %s", within, what)
		}
		<-tick.C
	}
	return time.Since(began)
}

// every says whether ok holds for all nodes.
func every(nodes []*lb, ok func(*lb) bool) bool {
	for _, n := range nodes {
		if !ok(n) {
			return false
		}
	}
	return true
}

// impatient gives up on a node that hangs, in time for its test to say so.
var impatient = &http.Client{Timeout: time.Minute}

// call sends a request to an admin API and returns the status and the body.
func call(t *testing.T, method, url, body string) (int, map[string]any) {
	t.Helper()
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := impatient.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]any
	if len(bytes.TrimSpace(text)) > 0 {
		if err := json.Unmarshal(text, &answer); err != nil {
			t.Fatalf("%s %s answered %d with no JSON: %s", method, url, response.StatusCode, text)
		}
	}
	return response.StatusCode, answer
}

func statusOf(t testing.TB, url string) int {
	t.Helper()
	response, err := impatient.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// load sends requests to some nodes without pause until it is stopped.
type load struct {
	cancel  context.CancelFunc
	clients sync.WaitGroup
	sent    atomic.Int64

	mu     sync.Mutex
	failed []string
}

// startLoad begins with so many clients for each node, each on a connection of
// its own that it keeps.
func startLoad(t *testing.T, nodes []*lb, clients int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	t.Cleanup(cancel)
	for _, n := range nodes {
		for range clients {
			l.clients.Go(func() { l.run(ctx, "http://"+n.http+"/") })
		}
	}
	return l
}

func (l *load) run(ctx context.Context, url string) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		_, err := fetch(client, url)
		l.sent.Add(1)
		if err != nil {
			l.mu.Lock()
			l.failed = append(l.failed, err.Error())
			l.mu.Unlock()
		}
	}
}

// fetch gets url and returns the first word after "Hello from ", which names
// the backend.
func fetch(client *http.Client, url string) (string, error) {
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", response.Status, text)
	}
	rest, found := strings.CutPrefix(string(text), "Hello from ")
	if !found {
		return "", fmt.Errorf("no backend named itself: %q", text)
	}
	return strings.Fields(rest)[0], nil
}

// stop ends the load and fails the test if any request failed.
func (l *load) stop(t *testing.T, while string) {
	t.Helper()
	l.cancel()
	l.clients.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("%s: %d requests, %d failed", while, l.sent.Load(), len(l.failed))
	if l.sent.Load() == 0 {
		t.Errorf("%s: no request was sent", while)
	}
	if len(l.failed) > 0 {
		t.Errorf("%s: %d of %d requests failed, first: %s", while, len(l.failed), l.sent.Load(), l.failed[0])
	}
}
