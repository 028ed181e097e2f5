package simulate

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// backend works on some requests at once, in the order in which they come.
type backend struct {
	*run
	index  int
	id     string
	free   []int64 // when each of its servers is
	spells []spell // when it is slow; in order, and none overlaps another
	begins int     // the first spell that is not over for what begins to be worked on
	lasts  int     // the first that is not over now
	queue  int     // how many it has
	picks  int     // how many it ever had
	weight int
}

// spell is a time in which all takes the factor as long.
type spell struct {
	from, until int64
	factor      float64
}

func (r *run) newBackend(i int) *backend {
	b := &backend{run: r, index: i, id: fmt.Sprintf("b%d", i), weight: 1, free: make([]int64, r.Servers)}
	if len(r.Weights) > 0 {
		b.weight = r.Weights[i]
	}
	switch {
	case i == 0 && r.Trouble == Slow:
		b.spells = []spell{{int64(r.onset()), forever, slowFactor}}
	case i == 0 && r.Trouble != NoTrouble:
	case i >= r.Backends && r.Cold > 0:
		b.spells = []spell{{int64(r.onset()), int64(r.onset() + r.Cold), coldFactor}}
	case r.SlowShare > 0:
		b.spells = r.drawSpells(seeded(r.Seed, 1+uint64(i)))
	}
	return b
}

// drawSpells has a backend be slow for the share of time that the world says. Where one
// spell ends and the next begins knows nothing of what was before.
func (r *run) drawSpells(random *rand.Rand) (spells []spell) {
	slow := random.Float64() < r.SlowShare
	for at := int64(0); at < int64(r.Time); slow = !slow {
		mean := float64(r.SlowTime)
		if !slow {
			mean *= (1 - r.SlowShare) / r.SlowShare
		}
		until := at + int64(random.ExpFloat64()*mean)
		if slow {
			spells = append(spells, spell{at, until, slowFactor})
		}
		at = until
	}
	return spells
}

// silent says whether the backend never answers what it gets at that time.
func (b *backend) silent(at int64) bool { return b.isBad(at, BlackHole) }

// fails says whether what it gets then is answered by a failure, at once.
func (b *backend) fails(at int64) bool { return b.isBad(at, Failing) }

func (b *backend) isBad(at int64, trouble Trouble) bool {
	return b.index == 0 && b.Trouble == trouble && at >= int64(b.onset())
}

// take has the backend work on a request, and says when it will have its answer.
func (b *backend) take(work int64) int64 {
	b.picks++
	b.queue++
	b.longest = max(b.longest, b.queue)
	switch {
	case b.silent(b.now):
		return forever
	case b.fails(b.now):
		return b.now + int64(failTime)
	}
	server := 0
	for i, at := range b.free {
		if at < b.free[server] {
			server = i
		}
	}
	b.free[server] = b.finish(max(b.free[server], b.now), float64(work))
	return b.free[server]
}

// finish is when work is done that is begun at a time. No later call is for an earlier one.
func (b *backend) finish(begin int64, work float64) int64 {
	for b.begins < len(b.spells) && b.spells[b.begins].until <= begin {
		b.begins++
	}
	at := float64(begin)
	for _, s := range b.spells[b.begins:] {
		if before := float64(s.from) - at; before > 0 {
			if work <= before {
				break
			}
			work, at = work-before, float64(s.from)
		}
		during := (float64(s.until) - at) / s.factor
		if work <= during {
			return int64(at + work*s.factor)
		}
		work, at = work-during, float64(s.until)
	}
	return int64(at + work)
}

// pace is how many times as long as usual the backend takes now.
func (b *backend) pace() float64 {
	for b.lasts < len(b.spells) && b.spells[b.lasts].until <= b.now {
		b.lasts++
	}
	if b.lasts < len(b.spells) && b.spells[b.lasts].from <= b.now {
		return b.spells[b.lasts].factor
	}
	return 1
}

// watch counts how often the bad backend is picked.
type watch struct {
	bad      *backend
	onset    time.Duration
	of, hits []int // by step of time: all picks since the onset, and those of the bad one
}

// watchStep is how exactly the time is found in which a bad backend is left alone, for
// as many steps as watchSteps.
const (
	watchStep  = 10 * time.Millisecond
	watchSteps = 100
)

func newWatch(bad *backend, onset, end time.Duration) watch {
	steps := int((end-onset)/watchStep) + 1
	return watch{bad: bad, onset: onset, of: make([]int, steps), hits: make([]int, steps)}
}

func (w *watch) pick(b *backend) {
	if w.bad == nil || b.now < int64(w.onset) {
		return
	}
	step := min(int((time.Duration(b.now)-w.onset)/watchStep), len(w.of)-1)
	w.of[step]++
	if b == w.bad {
		w.hits[step]++
	}
}

// eject is how long after the onset the bad backend began to get less than a tenth of the
// share that is fair among so many.
func (w *watch) eject(backends int) time.Duration {
	if w.bad == nil {
		return 0
	}
	sum := func(counts []int, from int) (n int) {
		for _, count := range counts[from:min(from+watchSteps, len(counts))] {
			n += count
		}
		return n
	}
	for step := range max(len(w.of)-watchSteps, 0) {
		if 10*backends*sum(w.hits, step) < sum(w.of, step) {
			return time.Duration(step) * watchStep
		}
	}
	return Never
}
