package balance

import "slices"

// slots is how many a table has, whatever the number of targets: one of another size
// would send every key elsewhere when a target too many comes or goes. It is a prime.
const slots = 65537

// leastPart is which part of the heaviest's weight each target has at least, as it has
// anyway unless it is on the way to its own. Thousands with less would miss so many turns
// that it took long.
const leastPart = 256

// maglev makes the table of Google's Maglev (Eisenbud et al., NSDI 2016, section 3.4).
// Each target has an order of its own in which it wants the slots. They take turns, and at each
// turn a target takes the first slot it wants that is still free. Those with less weight
// than the heaviest miss turns. So shares are even, and of the slots that others have, few
// change hands when a target comes or goes.
func maglev(targets []*Target) []int32 {
	if len(targets) == 0 {
		return nil
	}
	table := slices.Repeat([]int32{-1}, slots)
	wishes := make([]wish, len(targets))
	heaviest := 0
	for i, t := range targets {
		key := scatter(Key([]byte(t.ID)))
		wishes[i] = wish{next: key % slots, step: 1 + (key>>32)%(slots-1)}
		heaviest = max(heaviest, t.Weight)
	}
	for free := slots; free > 0; {
		for i := range wishes {
			w := &wishes[i]
			if w.credit += max(targets[i].Weight, heaviest/leastPart); w.credit < heaviest {
				continue
			}
			w.credit -= heaviest
			w.take(table, int32(i))
			if free--; free == 0 {
				break
			}
		}
	}
	return table
}

// wish is the order in which a target wants the slots: each step-th from next on.
type wish struct {
	next, step uint64
	credit     int
}

func (w *wish) take(table []int32, target int32) {
	for table[w.next] >= 0 {
		w.next = (w.next + w.step) % slots
	}
	table[w.next] = target
}
