//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// bench runs the cases. It owns the backend, the temporary files and, while a case
// runs, its proxies.
type bench struct {
	settings
	dir      string // of all files; removed at the end
	backend  *process
	address  string // of the backend
	files    uint64 // how many each process may open
	peers    []peer
	programs map[string]string // paths by peer
	machine  []string          // lines that say on what this ran
	missing  []string          // peers that are left out, and why
	rate     float64           // of the open loop
	progress io.Writer
}

// newBench finds the programs and starts the backend.
func newBench(ctx context.Context, s settings, progress io.Writer) (*bench, error) {
	b := &bench{settings: s, programs: map[string]string{}, progress: progress}
	for _, tool := range []string{"taskset", s.load} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("cannot measure: %w; to have it: apt-get install util-linux wrk nghttp2-client", err)
		}
	}
	var err error
	if b.files, err = raiseFileLimit(); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "lbbench-"); err != nil {
		return nil, fmt.Errorf("cannot make a directory for what the proxies write: %w", err)
	}
	if err := b.prepare(ctx); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) prepare(ctx context.Context) error {
	// Those of nginx's processes that do not run as root write there too.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return fmt.Errorf("cannot open %s to other users: %w", b.dir, err)
	}
	if err := b.findLbnode(ctx); err != nil {
		return err
	}
	b.findPeers()
	return b.startBackend(ctx)
}

// findLbnode takes the lbnode that was named, or the one beside this program, or
// builds one.
func (b *bench) findLbnode(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find lbnode: %w", err)
	}
	path := b.lbnode
	if beside := filepath.Join(filepath.Dir(self), subject); path == "" && exec.Command(beside, "version").Run() == nil {
		path = beside
	}
	if path == "" {
		fmt.Fprintln(b.progress, "building lbnode")
		path = filepath.Join(b.dir, subject)
		if text, err := exec.CommandContext(ctx, "go", "build", "-o", path, "lbnode/cmd/lbnode").CombinedOutput(); err != nil {
			return fmt.Errorf("cannot build lbnode: %w: %s; run lbbench inside its source, or give -lbnode", err, text)
		}
	}
	if path, err = filepath.Abs(path); err != nil {
		return fmt.Errorf("cannot find lbnode: %w", err)
	}
	if err := exec.Command(path, "version").Run(); err != nil {
		return fmt.Errorf("cannot run lbnode: %w", err)
	}
	b.programs[subject] = path
	return nil
}

// findPeers keeps the peers that were asked for and whose programs are there.
func (b *bench) findPeers() {
	b.machine = describeMachine(b.core, b.loadCore)
	for _, p := range allPeers() {
		if p.name != subject && !slices.Contains(b.settings.peers, p.name) {
			continue
		}
		if p.name != subject {
			path, err := p.find()
			if err != nil {
				b.missing = append(b.missing, err.Error())
				continue
			}
			b.programs[p.name] = path
		}
		b.peers = append(b.peers, p)
		if p.only == "" {
			b.machine = append(b.machine, p.name+": "+p.describe(b.programs[p.name]))
		}
	}
}

func (b *bench) startBackend(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot start the backend: %w", err)
	}
	free, err := freeAddresses(1)
	if err != nil {
		return err
	}
	b.address = free[0]
	b.backend, err = startProcess(b.dir, "backend", b.loadCore, []string{"GOMAXPROCS=1"},
		self, "part-backend", "-port", strconv.Itoa(portOf(b.address)))
	if err != nil {
		return err
	}
	return b.backend.awaitReady(ctx, func() error { return probe(ctx, b.address) })
}

// close ends the backend and removes the files.
func (b *bench) close() {
	if b.backend != nil {
		b.backend.stop()
	}
	if err := os.RemoveAll(b.dir); err != nil {
		fmt.Fprintln(b.progress, "cannot remove temporary files:", err)
	}
}

// runAll runs the cases and writes what they gave.
func (b *bench) runAll(ctx context.Context, stdout io.Writer) error {
	var results []result
	for _, c := range allCases() {
		if !slices.Contains(b.cases, c.name) {
			continue
		}
		r, err := b.runCase(ctx, c)
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	if err := b.write(results, stdout); err != nil {
		return err
	}
	for _, r := range results {
		if r.failed() {
			return fmt.Errorf("%w; the tables say which", errFailed)
		}
	}
	return nil
}

// runCase measures all proxies in one case. What goes wrong with one of them is
// in the result; the error is for what stops everything.
func (b *bench) runCase(ctx context.Context, c scenario) (result, error) {
	r := result{scenario: c}
	var running []*proxy
	defer func() {
		for _, p := range running {
			p.stop()
		}
	}()
	for _, peer := range b.peers {
		if peer.only != "" && peer.only != c.name {
			continue
		}
		p := &proxy{peer: peer}
		var err error
		if !c.fresh {
			p, err = b.startWarm(ctx, &c, peer)
		}
		running = append(running, p)
		r.series = append(r.series, series{peer: peer.name, err: err})
	}
	if c.direct {
		running = append(running, &proxy{peer: peer{name: noProxy}, place: place{Listen: b.address}})
		r.series = append(r.series, series{peer: noProxy})
	}
	for round := range b.rounds {
		if c.peak {
			if err := b.findRate(ctx, &r, running); err != nil {
				return r, err
			}
		}
		b.runRound(ctx, &r, running, round)
		if ctx.Err() != nil {
			return r, fmt.Errorf("stopped: %w", ctx.Err())
		}
	}
	return r, ctx.Err()
}

// runRound measures each proxy once. Every round begins with another one, so that
// none is always first. A proxy that has failed is not measured again.
func (b *bench) runRound(ctx context.Context, r *result, running []*proxy, round int) {
	for i := range running {
		i = (i + round) % len(running)
		s := &r.series[i]
		if s.err != nil || ctx.Err() != nil {
			continue
		}
		got, err := b.measure(ctx, &r.scenario, running[i])
		if err != nil {
			s.err = fmt.Errorf("round %d: %w", round+1, err)
			fmt.Fprintf(b.progress, "%s round %d %s failed: %v\n", r.name, round+1, s.peer, err)
			continue
		}
		s.samples = append(s.samples, got)
		fmt.Fprintf(b.progress, "%s round %d %s: %s %s\n", r.name, round+1, s.peer, figure(got.values[0]), r.columns[0])
	}
}

// measure measures a proxy once, in a process of its own if the case is so.
func (b *bench) measure(ctx context.Context, c *scenario, p *proxy) (sample, error) {
	if !c.fresh {
		return c.measure(ctx, b, c, p)
	}
	p, err := b.start(ctx, p.peer)
	if err != nil {
		return sample{}, err
	}
	defer p.stop()
	return c.measure(ctx, b, c, p)
}

func (b *bench) startWarm(ctx context.Context, c *scenario, p peer) (*proxy, error) {
	started, err := b.start(ctx, p)
	if err != nil {
		return &proxy{peer: p}, err
	}
	return started, c.warmUp(ctx, b, started)
}

func (b *bench) start(ctx context.Context, p peer) (*proxy, error) {
	free, err := freeAddresses(4)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.dir, p.name+"-")
	if err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", p.name, err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", p.name, err)
	}
	return p.start(ctx, place{
		Dir: dir, Listen: free[0], Port: portOf(free[0]), Admin: free[1], Gossip: free[2], Raft: free[3],
		Backend: b.address, Files: b.files, program: b.programs[p.name],
	}, b.core)
}

// stop ends the proxy, if it runs.
func (p *proxy) stop() {
	if p.process != nil {
		p.process.stop()
	}
}

// findRate sets the rate of a round's open loop to 70 % of what nginx can do at the
// time or, where it is not measured, lbnode.
func (b *bench) findRate(ctx context.Context, r *result, running []*proxy) error {
	reference := running[0]
	for _, p := range running {
		if p.name == "nginx" && p.process != nil {
			reference = p
		}
	}
	l := load{url: "http://" + reference.Listen + pathSmall, connections: 64, time: max(b.time, time.Second)}
	o, err := l.generate(ctx, b.load, b.loadCore, b.dir)
	if err != nil {
		return fmt.Errorf("cannot find the peak of %s, which the open loop needs: %w", reference.name, err)
	}
	b.rate = 0.7 * o.rate
	r.rates, r.reference = append(r.rates, b.rate), reference.name
	return nil
}
