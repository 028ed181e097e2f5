//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"
)

// errUsage: the command line is wrong; exit code 64, as of lbnode.
var errUsage = errors.New("usage")

// settings are what the command line says.
type settings struct {
	rounds   int           // of each case, at least 1; below 2 there are no intervals
	time     time.Duration // length of a round
	cases    []string
	peers    []string
	lbnode   string // path of the program; empty: built from source
	core     int    // where the proxy runs
	loadCore int    // where load and backend run
	idle     int    // connections of the case idle
	load     string // wrk or h2load
	markdown string
	svg      string
}

const usage = `lbbench measures lbnode beside other proxies and prints a table of ratios.

  lbbench [flags]
  lbbench sim [flags]     compares the strategies of pools instead, by simulation; sim -h says more

All proxies forward to the same backend, keep their connections to it and write
no access log. The one under test is alone on its core. Rounds alternate between
the proxies; ratios are taken within a round and given as median with a 95 %%
interval (Student's t over their logarithms). A ratio below 1 means that lbnode
needs less. Programs that are missing are left out. Exit code 1: a request failed.

Cases:
%s
Peers: %s

Flags:
`

// parseSettings reads the command line. Its errors wrap errUsage.
func parseSettings(args []string, stderr io.Writer) (settings, error) {
	var s settings
	var cases, peers string
	fs := flag.NewFlagSet("lbbench", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.IntVar(&s.rounds, "rounds", 5, "`number` of rounds of each case")
	fs.DurationVar(&s.time, "time", 3*time.Second, "`length` of a round; wrk rounds it up to whole seconds")
	fs.StringVar(&cases, "cases", strings.Join(caseNames(), ","), "`names` of the cases to run")
	fs.StringVar(&peers, "peers", strings.Join(usualPeers(), ","), "`names` of those to measure lbnode against; before is the program lbnode-before")
	fs.StringVar(&s.lbnode, "lbnode", "", "`path` of the lbnode to measure (default: beside lbbench, else built from source)")
	fs.IntVar(&s.core, "core", 1, "`number` of the core for the proxy")
	fs.IntVar(&s.loadCore, "load-core", 0, "`number` of the core for load and backend")
	fs.IntVar(&s.idle, "idle", 10000, "`number` of connections of the case idle")
	fs.StringVar(&s.load, "load", "wrk", "`program` that makes the load: wrk or h2load")
	fs.StringVar(&s.markdown, "markdown", "", "`file` to write the tables to, as Markdown")
	fs.StringVar(&s.svg, "svg", "", "`file` to write a chart of the ratios to")
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(stderr, usage, caseHelp(), strings.Join(peerNames(), ", "))
		fs.SetOutput(stderr)
		fs.PrintDefaults()
		return s, err
	}
	if err != nil {
		return s, fmt.Errorf("%w: %w; lbbench -h lists the flags", errUsage, err)
	}
	if fs.NArg() > 0 {
		return s, fmt.Errorf("%w: unexpected %q after the flags", errUsage, fs.Arg(0))
	}
	s.cases, s.peers = split(cases), split(peers)
	return s, s.validate()
}

func (s settings) validate() error {
	if err := known("case", s.cases, caseNames()); err != nil {
		return err
	}
	if err := known("peer", s.peers, peerNames()); err != nil {
		return err
	}
	switch {
	case s.rounds < 1:
		return fmt.Errorf("%w: -rounds must be at least 1, not %d", errUsage, s.rounds)
	case s.time < 100*time.Millisecond:
		return fmt.Errorf("%w: -time must be at least 100ms, not %s: CPU time is counted in steps of 10 ms", errUsage, s.time)
	case s.core == s.loadCore:
		return fmt.Errorf("%w: -core and -load-core must differ: what makes the load would take time from the proxy", errUsage)
	case s.core < 0 || s.loadCore < 0:
		return fmt.Errorf("%w: cores are counted from 0", errUsage)
	case runtime.NumCPU() < 2:
		return fmt.Errorf("%w: this machine gives one core; one is needed for the proxy and one for the load", errUsage)
	case s.idle < 1:
		return fmt.Errorf("%w: -idle must be at least 1, not %d", errUsage, s.idle)
	case s.load != "wrk" && s.load != "h2load":
		return fmt.Errorf("%w: -load must be wrk or h2load, not %q", errUsage, s.load)
	}
	return nil
}

// known refuses names that are not among those there are.
func known(what string, given, all []string) error {
	if len(given) == 0 {
		return fmt.Errorf("%w: no %s given; there are: %s", errUsage, what, strings.Join(all, ", "))
	}
	for _, name := range given {
		if !slices.Contains(all, name) {
			return fmt.Errorf("%w: unknown %s %q; there are: %s", errUsage, what, name, strings.Join(all, ", "))
		}
	}
	return nil
}

func split(names string) []string {
	return strings.FieldsFunc(names, func(r rune) bool { return r == ',' || r == ' ' })
}
