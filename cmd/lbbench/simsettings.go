//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"lbnode/proxy/balance/simulate"
)

// simSettings are what the command line says after the word sim.
type simSettings struct {
	strategies []string
	scenarios  []string
	balancers  []int     // empty: what the scenario says, as with all below
	backends   []int     //
	load       []float64 // of what all backends can do
	servers    int
	service    string
	seeds      int
	time       time.Duration // that requests come for, in the world's time
	markdown   string
	svg        string
}

const simUsage = `lbbench sim lets the strategies of pools pick on a virtual clock, for balancers
that know nothing of each other, and prints which has which tail.

  lbbench sim [flags]

The strategies are those that lbnode runs, fed as its proxy feeds them. Each scenario
is run with each strategy and each seed; a seed is the same requests and the same
mishaps for all. What strategies draw at random themselves is not seeded, so that
figures differ a little from run to run. The rules reference:... are none that a pool
can have. There are no health checks, circuits or hedges.

Scenarios:
%s
Strategies: %s

Flags:
`

// The numbers of the whole grid.
const (
	simFullBalancers = "1,3,5,16,64"
	simFullBackends  = "10,100,1000"
	simFullLoad      = "0.5,0.65,0.8,0.9,0.95"
)

// parseSimSettings reads the command line. Its errors wrap errUsage.
func parseSimSettings(args []string, stderr io.Writer) (*simSettings, error) {
	s := &simSettings{}
	var strategies, scenarios, balancers, backends, load string
	var full bool
	fs := flag.NewFlagSet("lbbench sim", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&strategies, "strategies", strings.Join(simulate.Names(), ","), "`names` of the strategies to compare")
	fs.StringVar(&scenarios, "scenarios", strings.Join(scenarioNames(), ","), "`names` of the scenarios to run")
	fs.StringVar(&balancers, "balancers", "", "`numbers` of balancers, such as 1,16 (default: by scenario)")
	fs.StringVar(&backends, "backends", "", "`numbers` of backends (default: by scenario)")
	fs.StringVar(&load, "load", "", "`shares` of what the backends can do that requests take (default 0.8)")
	fs.IntVar(&s.servers, "servers", 0, "`number` of requests that a backend works on at once (default: by scenario)")
	fs.StringVar(&s.service, "service", "", "`distribution` of service times: exponential, pareto or lognormal (default: by scenario)")
	fs.IntVar(&s.seeds, "seeds", 10, "`number` of runs of each, with other random numbers; with one there are no intervals")
	fs.DurationVar(&s.time, "time", 0, "`length` of a run, in simulated time (default: by scenario)")
	fs.BoolVar(&full, "full", false, fmt.Sprintf("the whole grid: %s balancers, %s backends, load %s, where not said otherwise; some 40 hours of one core", simFullBalancers, simFullBackends, simFullLoad))
	fs.StringVar(&s.markdown, "markdown", "", "`file` to write the tables to, as Markdown")
	fs.StringVar(&s.svg, "svg", "", "`file` to write a chart of the 99th percentiles to")
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(stderr, simUsage, scenarioHelp(), strings.Join(simulate.Names(), ", "))
		fs.SetOutput(stderr)
		fs.PrintDefaults()
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w; lbbench sim -h lists the flags", errUsage, err)
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%w: unexpected %q after the flags", errUsage, fs.Arg(0))
	}
	if full {
		balancers, backends, load = firstOf(balancers, simFullBalancers), firstOf(backends, simFullBackends), firstOf(load, simFullLoad)
	}
	s.strategies, s.scenarios = split(strategies), split(scenarios)
	var numbers [3]error
	s.balancers, numbers[0] = parseNumbers("-balancers", balancers, strconv.Atoi)
	s.backends, numbers[1] = parseNumbers("-backends", backends, strconv.Atoi)
	s.load, numbers[2] = parseNumbers("-load", load, func(text string) (float64, error) { return strconv.ParseFloat(text, 64) })
	if err := errors.Join(numbers[:]...); err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	return s, s.validate()
}

func firstOf(given, otherwise string) string {
	if given != "" {
		return given
	}
	return otherwise
}

// parseNumbers reads a list of numbers, which may be empty.
func parseNumbers[T any](flag, text string, parse func(string) (T, error)) (numbers []T, err error) {
	for _, word := range split(text) {
		n, err := parse(word)
		if err != nil {
			return nil, fmt.Errorf("%s must be numbers with commas between them, not %q", flag, text)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

// validate says, before anything is run, what could not be.
func (s *simSettings) validate() error {
	if err := known("strategy", s.strategies, simulate.Names()); err != nil {
		return err
	}
	if err := known("scenario", s.scenarios, scenarioNames()); err != nil {
		return err
	}
	if s.seeds < 1 {
		return fmt.Errorf("%w: -seeds must be at least 1, not %d", errUsage, s.seeds)
	}
	if s.service != "" {
		if _, err := simulate.ParseService(s.service); err != nil {
			return fmt.Errorf("%w: -service: %w", errUsage, err)
		}
	}
	if s.servers < 0 || s.time < 0 {
		return fmt.Errorf("%w: -servers and -time must not be negative", errUsage)
	}
	for _, c := range s.cells() {
		if err := c.world.Validate(); err != nil {
			return fmt.Errorf("%w: scenario %s: %w", errUsage, c.scenario.Name, err)
		}
	}
	return nil
}

// adjust makes of a scenario's world what the flags want.
func (s *simSettings) adjust(w *simulate.World) {
	if s.servers > 0 {
		w.Servers = s.servers
	}
	if s.time > 0 {
		w.Time = s.time
	}
	if service, err := simulate.ParseService(s.service); err == nil {
		w.Service = service
	}
}

func scenarioNames() (names []string) {
	for _, s := range simulate.Scenarios() {
		names = append(names, s.Name)
	}
	return names
}

// scenarioHelp lists the scenarios, a line each.
func scenarioHelp() string {
	var lines strings.Builder
	for _, s := range simulate.Scenarios() {
		fmt.Fprintf(&lines, "  %-12s %s\n", s.Name, s.Title)
	}
	return strings.TrimSuffix(lines.String(), "\n")
}
