package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"lbnode/cluster/admin"
	"lbnode/state"
)

const demoUsage = `usage: lbnode demo              run three nodes and three backends on this machine
       lbnode demo -kill NAME   kill one of them (lb1 to lb3, web-1 to web-3) in the running demo
       lbnode demo -start NAME  bring it back with the command that started it
`

const (
	// demoPatience is how long the demo may take to be ready.
	demoPatience = time.Minute
	// demoPoll is the time between two looks at the cluster.
	demoPoll = 250 * time.Millisecond
)

// runDemo is the command demo. It returns when ctx is done, or at once if it was
// to talk to a demo that is running.
func runDemo(ctx context.Context, args []string, stdout, _ io.Writer) error {
	if len(args) > 0 && args[0] == "backend" {
		return runDemoBackend(ctx, args[1:])
	}
	var requests []demoCommand
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are printed once, by main
	for _, verb := range []string{"kill", "start"} {
		flags.Func(verb, "", func(name string) error {
			requests = append(requests, demoCommand{verb, name})
			return nil
		})
	}
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, err = io.WriteString(stdout, demoUsage)
		return err
	case err != nil:
		return fmt.Errorf("%w: %w%s; lbnode demo -h lists the flags", errUsage, err, suggestFlag(err, flags))
	case flags.NArg() > 0:
		return fmt.Errorf("%w: demo takes no argument %q; to kill or start something name it after -kill or -start", errUsage, flags.Arg(0))
	case len(requests) > 1:
		return fmt.Errorf("%w: demo takes one -kill or -start at a time", errUsage)
	case len(requests) == 1:
		return requests[0].send(demoDir(), stdout)
	}
	return startDemo(ctx, stdout)
}

func startDemo(ctx context.Context, stdout io.Writer) error {
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program to run it: %w", err)
	}
	signal.Ignore(syscall.SIGPIPE) // so that lbnode demo | head ends in order
	d := newDemo(standardDemo(), demoDir(), []string{executable}, stdout)
	d.typed = typedCommand(executable, os.Args[0])
	return d.run(ctx)
}

// typedCommand is what the user types to run this program again.
func typedCommand(executable, arg0 string) string {
	if strings.Contains(executable, string(filepath.Separator)+"go-build") {
		return "go run ./cmd/lbnode" // built by go run, gone when it ends
	}
	return arg0
}

// demo runs the processes of a plan and tells what happens to them.
type demo struct {
	plan    demoPlan
	dir     string
	typed   string // how the user runs this program
	clients []*admin.Client
	crew    *crew

	mu      sync.Mutex // guards what follows
	out     io.Writer
	unheard context.CancelFunc // ends the demo, when nobody reads what it prints; nil if it does not run
}

func newDemo(plan demoPlan, dir string, command []string, out io.Writer) *demo {
	d := &demo{plan: plan, dir: dir, out: out}
	for _, n := range plan.nodes {
		d.clients = append(d.clients, admin.NewClient(n.adminAddr(), ""))
	}
	d.crew = newCrew(plan.members(dir), command, d.say)
	return d
}

// say prints one line with the time.
func (d *demo) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := fmt.Fprintf(d.out, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
	if err != nil && d.unheard != nil {
		d.unheard()
	}
}

// run holds the demo's directory and control socket while its processes live.
func (d *demo) run(ctx context.Context) error {
	defer d.crew.close()
	ctx, d.unheard = context.WithCancel(ctx)
	defer d.unheard()
	if err := claimDir(d.dir); err != nil {
		return err
	}
	control, err := openDemoControl(d.dir, d.crew)
	if err != nil {
		return err
	}
	defer os.RemoveAll(d.dir)
	defer control.close()
	if err := d.plan.checkPorts(); err != nil {
		return err
	}
	if err := emptyDir(d.dir); err != nil {
		return err
	}
	return d.runCrew(ctx)
}

// runCrew starts everything, tells what happens until ctx is done and stops
// everything, the nodes before the backends that they send traffic to.
func (d *demo) runCrew(ctx context.Context) error {
	backends, nodes := d.plan.names()
	d.say("starting nodes %s and backends %s", strings.Join(nodes, ", "), strings.Join(backends, ", "))
	err := d.crew.startAll(append(backends, nodes...))
	if err == nil {
		err = d.bringUp(ctx)
	}
	if err == nil {
		d.guide()
		w := demoWatcher{clients: d.clients, say: d.say}
		w.run(ctx)
	}
	d.say("stopping")
	d.crew.stop(nodes, backends)
	if ctx.Err() != nil {
		return nil // the user has seen enough
	}
	return err
}

// bringUp waits for the nodes to agree, adds the backends and waits for them to
// be healthy. It fails when a process stops meanwhile.
func (d *demo) bringUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, demoPatience, fmt.Errorf("not done after %s", demoPatience))
	defer cancel()
	if err := d.until(ctx, "wait for the nodes to agree", d.agreed); err != nil {
		return err
	}
	for _, b := range d.plan.backends {
		add := func(ctx context.Context) error { return d.addBackend(ctx, b) }
		if err := d.until(ctx, "add backend "+b.name, add); err != nil {
			return err
		}
	}
	return d.until(ctx, "wait for the backends to be healthy on every node", d.allHealthy)
}

// until calls try until it succeeds, ctx is done or a process has stopped.
func (d *demo) until(ctx context.Context, what string, try func(context.Context) error) error {
	ticker := time.NewTicker(demoPoll / 2)
	defer ticker.Stop()
	for {
		err := within(ctx, lookTimeout, try)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot %s: %w; last seen: %w", what, context.Cause(ctx), err)
		case name := <-d.crew.lost:
			return fmt.Errorf("cannot %s: %s has stopped; its last words are above", what, name)
		case <-ticker.C:
		}
	}
}

func within(ctx context.Context, limit time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return try(ctx)
}

func (d *demo) agreed(ctx context.Context) error {
	v, err := d.clients[0].Cluster(ctx)
	if err != nil {
		return err
	}
	if up := aliveNodes(v); up != len(d.plan.nodes) || v.Leader == "" || !v.Agreement {
		return fmt.Errorf("%d of %d nodes alive, leader %q, agreement %t", up, len(d.plan.nodes), v.Leader, v.Agreement)
	}
	return nil
}

func (d *demo) addBackend(ctx context.Context, b demoBackend) error {
	_, err := d.clients[0].AddBackend(ctx, state.DefaultPool, admin.BackendSpec{Name: b.name, URL: "http://" + b.addr()})
	if p, ok := errors.AsType[*admin.Problem](err); ok && p.Status == http.StatusConflict {
		return nil // an answer that was lost, not an addition
	}
	return err
}

func (d *demo) allHealthy(ctx context.Context) error {
	for _, client := range d.clients {
		v, err := client.Cluster(ctx)
		if err != nil {
			return err
		}
		if got := healthyBackends(v); got != len(d.plan.backends) {
			return fmt.Errorf("%d of %d backends healthy as seen by %s", got, len(d.plan.backends), v.AsSeenBy)
		}
	}
	return nil
}

// guide prints what to type next.
func (d *demo) guide() {
	d.say("ready: %d nodes agree, %d backends are healthy", len(d.plan.nodes), len(d.plan.backends))
	node, backend := d.plan.nodes[len(d.plan.nodes)/2].name, d.plan.backends[len(d.plan.backends)/2].name
	var others []string
	for _, n := range d.plan.nodes[1:] {
		others = append(others, strconv.Itoa(n.traffic))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprint(d.out, "\nIn another terminal:\n")
	table := tabwriter.NewWriter(d.out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(table, "  curl -v http://localhost:%d\tthree times: the backends answer in turn; so on the other nodes: %s\n", d.plan.nodes[0].traffic, strings.Join(others, ", "))
	fmt.Fprintf(table, "  %s status\tthe cluster at a glance\n", d.typed)
	fmt.Fprintf(table, "  %s demo -kill %s\ta node dies, the others go on; -start %s brings it back\n", d.typed, node, node)
	fmt.Fprintf(table, "  %s demo -kill %s\ta backend dies, no node uses it; -start %s brings it back\n", d.typed, backend, backend)
	table.Flush()
	fmt.Fprintf(d.out, "In a browser:\n  http://%s/cluster?pretty\nCtrl-C stops everything. What happens shows below.\n\n", d.plan.nodes[0].adminAddr())
}
