package balance

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// named makes targets with ids as the cluster makes them.
func named(weights ...int) []*Target {
	targets := weighted(weights...)
	for i, t := range targets {
		t.ID = fmt.Sprintf("%x", sha256.Sum256([]byte{byte(i), byte(i >> 8)}))[:26]
	}
	return targets
}

func hashOver(targets []*Target) *hash {
	h := newHash()
	h.Update(targets)
	return h
}

// Whatever a binary makes of keys and ids, another makes the same of them, or else a node
// that was upgraded would send clients elsewhere than the others do.
func TestHashIsTheSameForEver(t *testing.T) {
	for text, want := range map[string]uint64{
		"": 0xe28f2b2061a2b984, "10.0.0.1": 0x1e1e29847bef9ea3, "/a/path/that/is/long?no": 0x6ea1d9ee2b22756,
	} {
		if got := Key([]byte(text)); got != want {
			t.Errorf("key of %q: got %#x, want %#x", text, got, want)
		}
	}
	sum := sha256.New()
	for _, place := range maglev(named(1, 2, 3)) {
		sum.Write([]byte{byte(place)})
	}
	if got, want := fmt.Sprintf("%x", sum.Sum(nil))[:16], "bb6433a5f3e3e053"; got != want {
		t.Errorf("got a table with the digest %s, want %s", got, want)
	}
}

func TestKeysDiffer(t *testing.T) {
	seen := map[uint64]string{}
	for i := range 200_000 {
		for _, text := range []string{fmt.Sprint(i), fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), fmt.Sprintf("session=%x", i)} {
			key := Key([]byte(text))
			if other, ok := seen[key]; ok && other != text {
				t.Fatalf("%q and %q have the same key", text, other)
			}
			seen[key] = text
		}
	}
	for _, text := range []string{"\x00", "\x00\x00", "\x00\x00\x00\x00\x00\x00\x00\x00", "\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
		if other, ok := seen[Key([]byte(text))]; ok {
			t.Errorf("%q and %q have the same key", text, other)
		}
		seen[Key([]byte(text))] = text
	}
}

func TestHashIsTheSameInAnyOrder(t *testing.T) {
	targets := named(3, 1, 4, 1, 5, 9, 2, 6, 5, 3)
	first := hashOver(targets)
	for range 20 {
		shuffled := slices.Clone(targets)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if other := hashOver(shuffled); !slices.Equal(other.ring.Load().table, first.ring.Load().table) {
			t.Fatal("another order of the targets made another table")
		}
	}
	before := first.ring.Load().table
	first.Update(named(3, 1, 4, 1, 5, 9, 2, 6, 5, 3))
	if after := first.ring.Load().table; &after[0] != &before[0] {
		t.Error("the same targets made the table anew")
	}
	first.Update(named(3, 1, 4, 1, 5, 9, 2, 6, 5, 4))
	if slices.Equal(first.ring.Load().table, before) {
		t.Error("another weight left the table as it was")
	}
}

// The keys of a target that goes have to move, and hardly any others.
func TestFewKeysMove(t *testing.T) {
	const keys, epsilon = 50_000, 0.01
	weights := map[string][]int{"weights": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, "heavy": {1, 1, 1, 256}}
	for _, n := range []int{2, 3, 10, 100, 1000} {
		weights[fmt.Sprint(n)] = slices.Repeat([]int{1}, n)
	}
	for name, weights := range weights {
		targets := named(weights...)
		total := 0
		for _, w := range weights {
			total += w
		}
		h := hashOver(targets)
		where := make([]string, keys)
		for i := range where {
			where[i] = h.Pick(scatter(uint64(i)), nil).ID
		}
		for _, gone := range slices.Compact([]int{0, len(targets) / 2, len(targets) - 1}) {
			h.Update(without(targets, gone))
			moved := 0
			for i := range where {
				if h.Pick(scatter(uint64(i)), nil).ID != where[i] {
					moved++
				}
			}
			share, most := float64(moved)/keys, float64(weights[gone])/float64(total)+epsilon
			if share > most {
				t.Errorf("%s: %.4f of the keys moved when target %d went, want %.4f at most", name, share, gone, most)
			}
		}
		h.Update(targets)
		for i := range where {
			if got := h.Pick(scatter(uint64(i)), nil).ID; got != where[i] {
				t.Fatalf("%s: a key is sent to %s when all are back, want %s as before", name, got, where[i])
			}
		}
	}
}

func without(targets []*Target, i int) []*Target {
	return slices.Concat(targets[:i], targets[i+1:])
}

// However uneven the keys are, no target has more than it may.
func TestLoadIsBounded(t *testing.T) {
	for _, weights := range [][]int{{1, 1}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {1, 2, 3, 4}, slices.Repeat([]int{2, 1}, 100)} {
		targets := named(weights...)
		total := 0
		for _, w := range weights {
			total += w
		}
		h := hashOver(targets)
		c := newCrowd(h)
		zipf := rand.NewZipf(rand.New(rand.NewPCG(7, 8)), 1.2, 1, 1000)
		for i := range 60_000 {
			got := h.Pick(scatter(zipf.Uint64()), nil)
			c.begin(got)
			load, most := got.InFlight.Load(), 1.25*float64(len(c.underWay))*float64(got.Weight)/float64(total)
			if float64(load) > max(most+1, fewAttempts) {
				t.Fatalf("weights %v: a target of weight %d got %d of %d attempts, want %.0f at most", weights, got.Weight, load, len(c.underWay), most+1)
			}
			for len(c.underWay) > 30*total*(1+i/20_000) || i%10_000 == 0 && len(c.underWay) > total {
				c.end()
			}
		}
	}
}

// A key that is passed on goes to the same target each time, and so does one that is
// tried again.
func TestKeyIsPassedOnAlways(t *testing.T) {
	targets := named(slices.Repeat([]int{1}, 10)...)
	h := hashOver(targets)
	for range 200 {
		key := rand.Uint64()
		home := h.Pick(key, nil)
		next := h.Pick(key, []*Target{home})
		home.InFlight.Add(1000)
		h.Count(1000)
		for range 20 {
			if got := h.Pick(key, nil); got != next {
				t.Fatalf("a key was passed on to %s, want %s each time", got.ID, next.ID)
			}
		}
		home.InFlight.Add(-1000)
		h.Count(-1000)
		if got := h.Pick(key, nil); got != home {
			t.Fatalf("got %s once there is room again, want %s", got.ID, home.ID)
		}
	}
}

// Attempts that another strategy began are not counted. With them, all targets may seem
// to have too much to do.
func TestKeyStaysWhenAllAreFull(t *testing.T) {
	targets := named(1, 1, 1)
	h := hashOver(targets)
	for key := range uint64(100) {
		want := h.Pick(key, nil)
		for _, target := range targets {
			target.InFlight.Store(50)
		}
		if got := h.Pick(key, nil); got != want {
			t.Fatalf("got %s with all full, want %s, where the key belongs", got.ID, want.ID)
		}
		for _, target := range targets {
			target.InFlight.Store(0)
		}
	}
}
