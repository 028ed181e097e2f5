package state

import (
	"fmt"
	"testing"
)

// newLargeMachine returns a machine of many pools with 10 healthy backends each.
func newLargeMachine(b *testing.B, pools int) *Machine {
	b.Helper()
	var c content
	for n := range pools {
		pool := Pool{Name: fmt.Sprintf("pool-%d", n)}.withDefaults()
		for i := range 10 {
			backend := Backend{
				ID:   fmt.Sprintf("id-%d-%d", n, i),
				Name: fmt.Sprintf("b%d", i),
				Host: fmt.Sprintf("10.%d.%d.%d", n/256, n%256, i+1),
				Port: 8080, Health: Healthy,
			}
			b := backend.withDefaults()
			pool.Backends = append(pool.Backends, &b)
		}
		c.putPool(&pool)
	}
	return &Machine{view: newView(1, c)}
}

// turnAll gives the opposite verdict on every n-th backend.
func turnAll(v *View, n int) *SetHealth {
	op := &SetHealth{}
	for i, pool := range v.Pools {
		for j := range pool.Backends {
			b := pool.Backends[j]
			if (10*i+j)%n != 0 {
				continue
			}
			health := Healthy
			if b.Healthy() {
				health = Unhealthy
			}
			op.Verdicts = append(op.Verdicts, Verdict{BackendID: b.ID, URL: b.URL(), Health: health})
		}
	}
	return op
}

// BenchmarkSetHealth is of 1,000 pools with 10,000 backends in all.
func BenchmarkSetHealth(b *testing.B) {
	for _, every := range []int{10_000, 100, 1} {
		b.Run(fmt.Sprintf("verdicts=%d", 10_000/every), func(b *testing.B) {
			benchmarkSetHealth(b, every)
		})
	}
}

func benchmarkSetHealth(b *testing.B, every int) {
	m := newLargeMachine(b, 1000)
	index := uint64(2)
	apply := func(data []byte) {
		if _, err := m.Apply(index, data); err != nil {
			b.Fatal(err)
		}
		index++
	}
	var thereAndBack [2][]byte
	for i := range thereAndBack {
		thereAndBack[i] = encode(b, Command{Op: turnAll(m.View(), every)})
		apply(thereAndBack[i])
	}
	b.ReportAllocs()
	for b.Loop() {
		apply(thereAndBack[index%2])
	}
}

// BenchmarkDigest is what a node pays once for each new view.
func BenchmarkDigest(b *testing.B) {
	m := newLargeMachine(b, 1000)
	b.ReportAllocs()
	for b.Loop() {
		newView(1, m.view.content).Digest()
	}
}

func BenchmarkSnapshot(b *testing.B) {
	m := newLargeMachine(b, 1000)
	b.ReportAllocs()
	for b.Loop() {
		data := snapshotBytes(b, m)
		b.SetBytes(int64(len(data)))
		restore(b, data)
	}
}
