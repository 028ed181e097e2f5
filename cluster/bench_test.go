package cluster

import (
	"slices"
	"sync"
	"testing"
	"time"

	"lbnode/state"
)

// BenchmarkPropose has 64 callers write on three nodes in one process.
func BenchmarkPropose(b *testing.B) {
	nodes := startCluster(b, 3, nil)
	propose(b, nodes[0], addBackend("web-1", 3001))
	const callers = 64
	took := make([][]time.Duration, callers)
	b.ResetTimer()
	began := time.Now()
	var writing sync.WaitGroup
	for i := range callers {
		writing.Go(func() {
			for n := i; n < b.N; n += callers {
				at := time.Now()
				op := &state.UpdateBackend{Pool: state.DefaultPool, Name: "web-1", Patch: state.Backend{Weight: 1 + n%256}}
				if _, err := nodes[i%3].Propose(b.Context(), Write{Op: op}); err != nil {
					b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(at))
			}
		})
	}
	writing.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "writes/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[(len(all)-1)*99/100].Microseconds())/1000, "p99-ms")
}
