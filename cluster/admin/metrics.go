package admin

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lbnode/cluster"
	"lbnode/state"
)

const (
	// scrapeTimeout bounds a scrape, come what may.
	scrapeTimeout = 5 * time.Second
	maxScrapes    = 4
	maxCode       = 999
)

// Metrics count what happens to traffic on this node. All methods may be called
// concurrently. METRICS.md describes what comes of them.
type Metrics struct {
	registry *prometheus.Registry

	requests        *prometheus.CounterVec
	requestDuration *prometheus.HistogramVec
	attempts        *prometheus.CounterVec
	attemptDuration *prometheus.HistogramVec
	checkFailures   *prometheus.CounterVec
	retries         *prometheus.CounterVec
	rejected        *prometheus.CounterVec
	connections     *prometheus.GaugeVec
	unlogged        prometheus.Counter // of the access log
	logDropped      prometheus.Counter
	commitDuration  prometheus.Histogram

	pools sync.Map // of *poolSeries, by name
}

// NewMetrics returns metrics at zero, in a registry of their own.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: counters("lbnode_requests_total",
			"Requests that ended, by the status code that the client got.", "pool", "code", "method", "protocol"),
		requestDuration: durations("lbnode_request_duration_seconds",
			"Time from the start of a request to the end of its answer.", "pool"),
		attempts: counters("lbnode_backend_requests_total",
			"Attempts at backends, by the status code of the answer; 0 is no answer.", "pool", "backend", "code"),
		attemptDuration: durations("lbnode_backend_request_duration_seconds",
			"Time that an attempt at a backend took.", "pool", "backend"),
		checkFailures: counters("lbnode_backend_check_failures_total",
			"Probes by this node that failed.", "pool", "backend"),
		retries: counters("lbnode_retries_total",
			"Requests that were tried again on another backend.", "pool", "reason"),
		rejected: counters("lbnode_rejected_total",
			"Requests that this node answered itself, with an error.", "reason"),
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "lbnode_connections_open",
			Help: "Open connections from clients."}, []string{"listener"}),
		unlogged: prometheus.NewCounter(prometheus.CounterOpts{Name: "lbnode_access_log_dropped_total",
			Help: "Lines that the access log should have and has not."}),
		logDropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "lbnode_log_dropped_total",
			Help: "Lines that the node's own log should have and has not."}),
		commitDuration: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "lbnode_raft_commit_duration_seconds",
			Help: "Time that this node, as leader, took to commit and apply a write.", Buckets: durationBuckets()}),
	}
	m.registry.MustRegister(m.requests, m.requestDuration, m.attempts, m.attemptDuration,
		m.checkFailures, m.retries, m.rejected, m.connections, m.unlogged, m.logDropped, m.commitDuration)
	return m
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func durations(name, help string, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: durationBuckets()}, labels)
}

// durationBuckets spans half a millisecond to the default request timeout.
func durationBuckets() []float64 {
	return []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
}

// Request counts a request that ended; pool is empty if none matched.
func (m *Metrics) Request(pool, method, protocol string, code int, took time.Duration) {
	code = known(code)
	of, by, over := m.pool(pool), indexOf(methods[:], method), indexOf(protocols[:], protocol)
	of.requests[by][over].get(code, func() prometheus.Counter {
		return m.requests.WithLabelValues(pool, strconv.Itoa(code), methods[by], protocols[over])
	}).Inc()
	of.duration.Observe(took.Seconds())
}

// Attempt counts an attempt at a backend that ended; code is 0 if there was no
// answer.
func (m *Metrics) Attempt(pool, backend string, code int, took time.Duration) {
	code = known(code)
	of := m.backend(pool, backend)
	of.attempts.get(code, func() prometheus.Counter {
		return m.attempts.WithLabelValues(pool, backend, strconv.Itoa(code))
	}).Inc()
	of.duration.Observe(took.Seconds())
}

// Retry counts a request that is tried again; reason is of a small fixed set.
func (m *Metrics) Retry(pool, reason string) { m.retries.WithLabelValues(pool, reason).Inc() }

// Reject counts a request that the node answered itself with an error; reason is
// of a small fixed set.
func (m *Metrics) Reject(reason string) { m.rejected.WithLabelValues(reason).Inc() }

// Connections adds delta to the number of open client connections.
func (m *Metrics) Connections(listener string, delta int) {
	m.connections.WithLabelValues(listener).Add(float64(delta))
}

// AccessLogDropped counts lines that were not written to the access log.
func (m *Metrics) AccessLogDropped(lines int) { m.unlogged.Add(float64(lines)) }

// LogDropped counts lines that were not written to the node's own log.
func (m *Metrics) LogDropped(lines int) { m.logDropped.Add(float64(lines)) }

// CheckFailed counts a probe that failed.
func (m *Metrics) CheckFailed(pool, backend string) {
	m.checkFailures.WithLabelValues(pool, backend).Inc()
}

// Committed counts a write that this node committed as leader.
func (m *Metrics) Committed(took time.Duration) { m.commitDuration.Observe(took.Seconds()) }

// handler serves m together with what the cluster, this node's proxy and the
// process say at the time of the scrape.
func (m *Metrics) handler(c Cluster, local func() cluster.Local) http.Handler {
	now := prometheus.NewRegistry()
	now.MustRegister(newClusterCollector(c, local), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	scrape := promhttp.HandlerFor(prometheus.Gatherers{m.registry, now}, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
		Timeout:             scrapeTimeout,
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.forgetGone(c.View)
		scrape.ServeHTTP(w, r)
	})
}

// forgetGone drops the series of pools and backends that are no longer there.
// The view is asked for after the series are listed: then it knows every pool
// and backend that they can name, unless it has gone.
func (m *Metrics) forgetGone(view func() *state.View) {
	families, err := m.registry.Gather()
	if err != nil {
		return // the scrape meets the same error and tells it
	}
	now := view()
	for _, family := range families {
		for _, series := range family.GetMetric() {
			labels := prometheus.Labels{}
			for _, label := range series.GetLabel() {
				if name := label.GetName(); name == "pool" || name == "backend" {
					labels[name] = label.GetValue()
				}
			}
			if gone(labels, now) {
				m.forget(labels)
			}
		}
	}
}

// gone says whether labels name a pool or a backend that the view does not have.
func gone(labels prometheus.Labels, view *state.View) bool {
	if labels["pool"] == "" { // of no pool
		return false
	}
	pool := view.Pool(labels["pool"])
	if pool == nil {
		return true
	}
	backend, ok := labels["backend"]
	return ok && pool.Backend(backend) == nil
}

func (m *Metrics) forget(labels prometheus.Labels) {
	m.requests.DeletePartialMatch(labels)
	m.requestDuration.DeletePartialMatch(labels)
	m.attempts.DeletePartialMatch(labels)
	m.attemptDuration.DeletePartialMatch(labels)
	m.checkFailures.DeletePartialMatch(labels)
	m.retries.DeletePartialMatch(labels)
	// Not before, or else a counter could be kept that is no longer in the registry.
	m.forgetSeries(labels["pool"], labels["backend"])
}
