package state

import (
	"fmt"
	"reflect"
	"runtime"
	"testing"
)

// numbered is a backend of which there may be very many.
func numbered(n int) Backend {
	return Backend{ID: fmt.Sprintf("id-%d", n), Name: fmt.Sprintf("web-%d", n), Host: fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&255, n&255), Port: 80}
}

// TestOldViewsAreNotKept: who keeps each backend as it came, as the data plane does, keeps no
// view of the time with it. The heap would have gigabytes.
func TestOldViewsAreNotKept(t *testing.T) {
	r, kept := newReplica(), []*Backend{}
	before := heap()
	for i := range maxBackends {
		b := numbered(i)
		r.do(t, &AddBackend{Pool: DefaultPool, Backend: b})
		kept = append(kept, r.View().Pool(DefaultPool).Backend(b.Name))
	}
	if got := heap() - before; got > 32<<20 {
		t.Errorf("got %d MiB of heap for %d backends that were added one by one, want 32 at most", got>>20, len(kept))
	}
	runtime.KeepAlive(kept)
}

func heap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// checkIndex fails the test unless the machine's index is that of its view.
func checkIndex(t testing.TB, m *Machine) {
	t.Helper()
	if want := newIndex(&m.view.content); !reflect.DeepEqual(m.index, want) {
		t.Fatalf("got the index %v, want %v", m.index, want)
	}
}

func BenchmarkAddBackend(b *testing.B) {
	for _, size := range []int{100, 1000, maxBackends - 1} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			op := &CreatePool{Pool: Pool{Name: DefaultPool}}
			for i := range size {
				op.Pool.Backends = append(op.Pool.Backends, new(numbered(i)))
			}
			m, index := NewMachine(), uint64(0)
			apply := func(op Op) {
				index++
				if result, err := m.Apply(index, encode(b, Command{Op: op})); err != nil || result.Err != nil {
					b.Fatal(err, result.Err)
				}
			}
			apply(op)
			add, remove := &AddBackend{Pool: DefaultPool, Backend: numbered(size)}, &RemoveBackend{Pool: DefaultPool, Name: numbered(size).Name}
			b.ReportAllocs()
			for b.Loop() {
				apply(add)
				apply(remove)
			}
		})
	}
}
