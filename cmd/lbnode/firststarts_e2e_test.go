package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// Three machines start for the first time. In any order, over some seconds, each gets its
// address, its resolver learns the records one by one, and lbnode starts: one cluster comes of it.
func TestFirstStartsInAnyOrder(t *testing.T) {
	for round := range amount(3, 200) {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Parallel()
			list := [][]string{
				{"lb.test", "lb.test", "lb.test"},
				{"lb1.test", "lb2.test", "lb3.test"},
				{"10.77.0.1", "10.77.0.2", "10.77.0.3"},
			}[round%3]
			hosts := bareHosts(t, 3)
			shuffled(t, happenings(t, hosts, list))
			took := eventually(t, patience, "one cluster of three", func() bool { return oneCluster(hosts) })
			t.Logf("-join %s: one cluster %s after the last event", strings.Join(slices.Compact(list), ","), took.Round(time.Millisecond))
		})
	}
}

// happenings prepares three machines and returns all that is to happen to them.
func happenings(t *testing.T, hosts []*host, list []string) (events []func()) {
	t.Helper()
	secret := newSecret(t)
	for i, h := range hosts {
		r := newResolver(h)
		p := h.node(fmt.Sprintf("lb%d", i+1), "-join", strings.Join(slices.Compact(slices.Clone(list)), ","), "-secret", secret)
		p.under = append(p.under, r.under()...)
		var known []string
		learn := func(j int) {
			known = append(known, fmt.Sprintf("%s 10.77.0.%d", list[j], j+1))
			r.knows(known...)
		}
		if rand.IntN(2) == 0 {
			learn(i) // its own record first of all
		}
		for j := range hosts {
			events = append(events, func() { learn(j) })
		}
		events = append(events, p.start, func() { h.give(fmt.Sprintf("10.77.0.%d", i+1)) })
	}
	return events
}

// shuffled has all happen in random order, over some seconds.
func shuffled(t *testing.T, events []func()) {
	for _, i := range rand.Perm(len(events)) {
		events[i]()
		hold(t, time.Duration(rand.Int64N(int64(400*time.Millisecond))))
	}
}
