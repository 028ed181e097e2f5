package balance

import "math/rand/v2"

// scan is a list of targets to be compared with one another. What is looked at of each
// stands side by side, apart from the targets.
type scan struct {
	targets []*Target
	cells   []cell
}

type cell struct {
	*Local
	weight uint64
}

func newScan(targets []*Target) *scan {
	s := &scan{targets: targets, cells: make([]cell, len(targets))}
	for i, t := range targets {
		s.cells[i] = cell{t.Local, uint64(t.Weight)}
	}
	return s
}

// taken gives the target chosen, nil if there was none to choose.
func (s *scan) taken(c *choice) *Target {
	if c.at < 0 {
		return nil
	}
	return s.targets[c.at]
}

// choice is the one of those offered that costs least for its weight. Between equals it
// is drawn by weight.
type choice struct {
	at     int // -1: none yet
	cost   uint64
	weight uint64
	equal  uint64 // the weight of all that cost as little
	random uint64
}

func newChoice() choice { return choice{at: -1, random: rand.Uint64()} }

// offer is called once for each i. The cost is at most occupied times a time in units, half
// as much again, and that times the greatest weight, 256 with a unit of 10, is less than 1<<64.
func (c *choice) offer(i int, cost, weight uint64) {
	mine, best := cost*c.weight, c.cost*weight
	switch {
	case c.at < 0 || mine < best:
		c.equal = 0
	case mine > best:
		return
	}
	c.equal += weight
	c.random = c.random*6364136223846793005 + 1442695040888963407 // whose upper half is random enough
	if (c.random>>32)*c.equal>>32 < weight {
		c.at, c.cost, c.weight = i, cost, weight
	}
}
