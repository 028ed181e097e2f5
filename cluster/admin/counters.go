package admin

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Finding a counter by its labels costs more than all else that is done to count. So
// what is counted for each request is found by its pool, its backend and its code.

// poolSeries are the counters of one pool.
type poolSeries struct {
	duration prometheus.Observer
	requests [len(methods)][len(protocols)]byCode
	backends sync.Map // of *backendSeries, by name
}

// backendSeries are those of one backend.
type backendSeries struct {
	duration prometheus.Observer
	attempts byCode
}

// byCode holds counters by status code, a hundred at a time.
type byCode [maxCode/100 + 1]atomic.Pointer[[100]atomic.Pointer[counter]]

type counter struct{ prometheus.Counter }

// get returns the counter for a code, which make makes if it is the first time.
func (b *byCode) get(code int, make func() prometheus.Counter) prometheus.Counter {
	hundred := b[code/100].Load()
	if hundred == nil {
		b[code/100].CompareAndSwap(nil, new([100]atomic.Pointer[counter]))
		hundred = b[code/100].Load()
	}
	c := hundred[code%100].Load()
	if c == nil {
		c = &counter{make()}
		hundred[code%100].Store(c) // the same one, if somebody else made it just now
	}
	return c
}

// pool returns the series of a pool.
func (m *Metrics) pool(name string) *poolSeries {
	if p, ok := m.pools.Load(name); ok {
		return p.(*poolSeries)
	}
	p, _ := m.pools.LoadOrStore(name, &poolSeries{duration: m.requestDuration.WithLabelValues(name)})
	return p.(*poolSeries)
}

// backend returns the series of one of its backends.
func (m *Metrics) backend(pool, name string) *backendSeries {
	of := m.pool(pool)
	if b, ok := of.backends.Load(name); ok {
		return b.(*backendSeries)
	}
	b, _ := of.backends.LoadOrStore(name, &backendSeries{duration: m.attemptDuration.WithLabelValues(pool, name)})
	return b.(*backendSeries)
}

// forgetSeries drops those of a backend, or with none of a whole pool.
func (m *Metrics) forgetSeries(pool, backend string) {
	if backend == "" {
		m.pools.Delete(pool)
	} else if p, ok := m.pools.Load(pool); ok {
		p.(*poolSeries).backends.Delete(backend)
	}
}

// The values of the labels method and protocol: clients must not make more. The last
// stands for all others.
var (
	methods   = [...]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "OTHER"}
	protocols = [...]string{"HTTP/1.1", "HTTP/2.0", "HTTP/1.0", "HTTP/3.0", "OTHER"}
)

func indexOf(labels []string, label string) int {
	for i, l := range labels {
		if l == label {
			return i
		}
	}
	return len(labels) - 1
}

// known is 0 for what is no status code.
func known(code int) int {
	if code < 0 || code > maxCode {
		return 0
	}
	return code
}
