package admin

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lbnode/cluster"
	"lbnode/state"
)

// scrape returns the lines of /metrics that tell of lbnode.
func scrape(t *testing.T, addr string) string {
	t.Helper()
	got := ask(t, "GET", "http://"+addr+"/metrics", "")
	if got.status != 200 {
		t.Fatalf("scrape: got %d %s, want 200", got.status, got.body)
	}
	return got.body
}

// useAll counts something of everything for a backend.
func useAll(m *Metrics, pool, backend string) {
	m.Request(pool, "GET", "HTTP/1.1", 200, time.Millisecond)
	m.Attempt(pool, backend, 200, time.Millisecond)
	m.Retry(pool, "connect")
	m.Reject("no_route")
	m.Connections("http", 2)
	m.AccessLogDropped(1)
	m.CheckFailed(pool, backend)
	m.Committed(time.Millisecond)
}

// TestMetricsAreDocumented compares what is served with METRICS.md, both ways.
func TestMetricsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(lbnode_[a-z_]+)` \\| ([a-z]+) \\| ([a-z, ]*)\\|").FindAllStringSubmatch(string(doc), -1) {
		labels := strings.FieldsFunc(m[3], func(r rune) bool { return r == ',' || r == ' ' })
		slices.Sort(labels)
		want[m[1]] = m[2] + " of " + strings.Join(labels, ",")
	}
	m := NewMetrics()
	addr := serve(t, webPool(t), Config{Metrics: m})
	useAll(m, "web", "web-1")
	if got := served(scrape(t, addr)); !maps.Equal(got, want) {
		t.Errorf("served and documented differ:\ngot  %v\nwant %v", got, want)
	}
}

// served gives the types and labels of the metrics of lbnode in a scrape.
func served(body string) map[string]string {
	metrics := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (lbnode_\w+) (\w+)$`).FindAllStringSubmatch(body, -1) {
		line := regexp.MustCompile(`(?m)^` + m[1] + `(?:_sum)?(?:\{(.*)\})? `).FindStringSubmatch(body)
		var labels []string
		for _, label := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(line[1], -1) {
			labels = append(labels, label[1])
		}
		metrics[m[1]] = m[2] + " of " + strings.Join(labels, ",")
	}
	return metrics
}

func TestMetricValues(t *testing.T) {
	c := threeNodes(t)
	c.local = c.status.Nodes[0].Local
	m := NewMetrics()
	addr := serve(t, c, Config{Metrics: m})
	m.Request("web", "GET", "HTTP/1.1", 200, time.Millisecond)
	m.Request("web", "GET", "HTTP/1.1", 200, time.Millisecond)
	m.Request("web", "BREW", "HTCPCP/1.0", 99999, time.Millisecond)
	m.Request("", "GET", "HTTP/2.0", 404, time.Millisecond)
	m.Attempt("web", "web-1", 0, 40*time.Second)
	m.Connections("http", 2)
	m.Connections("http", -1)
	m.Committed(3 * time.Millisecond)
	body := scrape(t, addr)
	for _, want := range []string{
		`lbnode_requests_total{code="200",method="GET",pool="web",protocol="HTTP/1.1"} 2`,
		`lbnode_requests_total{code="0",method="OTHER",pool="web",protocol="OTHER"} 1`,
		`lbnode_requests_total{code="404",method="GET",pool="",protocol="HTTP/2.0"} 1`,
		`lbnode_request_duration_seconds_bucket{pool="web",le="0.0005"} 0`,
		`lbnode_request_duration_seconds_bucket{pool="web",le="0.001"} 3`,
		`lbnode_backend_requests_total{backend="web-1",code="0",pool="web"} 1`,
		`lbnode_backend_request_duration_seconds_bucket{backend="web-1",pool="web",le="30"} 0`,
		`lbnode_connections_open{listener="http"} 1`,
		`lbnode_backend_up{backend="web-1",pool="web"} 1`,
		`lbnode_backend_up{backend="web-2",pool="web"} 0`,
		`lbnode_backend_in_flight{backend="web-1",pool="web"} 2`,
		`lbnode_cluster_members{status="alive"} 2`,
		`lbnode_cluster_members{status="suspect"} 1`,
		`lbnode_cluster_members{status="failed"} 1`,
		`lbnode_cluster_members{status="left"} 0`,
		`lbnode_cluster_agreement 1`,
		`lbnode_failure_tolerance 0`,
		`lbnode_view_index 4`,
		`lbnode_raft_is_leader 1`,
		`lbnode_raft_term 4`,
		`lbnode_raft_applied_index 4`,
		`lbnode_raft_last_contact_seconds 0`,
		`lbnode_raft_store_bytes 65536`,
		`lbnode_raft_commit_duration_seconds_bucket{le="0.0025"} 0`,
		`lbnode_raft_commit_duration_seconds_bucket{le="0.005"} 1`,
		`go_goroutines`,
		`process_open_fds`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("scrape does not hold %s", want)
		}
	}
	c.change(func() { c.status.Nodes[0].LastContact = -1 })
	if want := "lbnode_raft_last_contact_seconds +Inf"; !strings.Contains(scrape(t, addr), want) {
		t.Errorf("scrape of a node that never heard from a leader does not hold %s", want)
	}
}

func TestSeriesGoAwayWithTheirBackend(t *testing.T) {
	c := webPool(t)
	m := NewMetrics()
	addr := serve(t, c, Config{Metrics: m})
	c.apply(t,
		&state.AddBackend{Pool: "web", Backend: state.Backend{ID: "b2", Name: "web-2", Host: "h", Port: 80}},
		&state.AddBackend{Pool: "idle", Backend: state.Backend{ID: "b3", Name: "web-1", Host: "h", Port: 80}},
	)
	for _, b := range [][2]string{{"web", "web-1"}, {"web", "web-2"}, {"idle", "web-1"}, {"", ""}} {
		useAll(m, b[0], b[1])
	}
	count := func(labels string) int { return strings.Count(scrape(t, addr), labels) }
	if count(`{backend="web-2",`) == 0 || count(`pool="idle"`) == 0 {
		t.Fatal("series of living backends are missing")
	}
	c.apply(t, &state.RemoveBackend{Pool: "web", Name: "web-2"}, &state.DeletePool{Name: "idle"})
	for range 2 {
		if got := count(`backend="web-2"`); got != 0 {
			t.Errorf("series of a removed backend: got %d, want 0", got)
		}
		if got := count(`pool="idle"`); got != 0 {
			t.Errorf("series of a removed pool: got %d, want 0", got)
		}
		useAll(m, "web", "web-2") // a request that was under way ends late
	}
	if got := count(`lbnode_backend_requests_total{backend="web-1",code="200",pool="web"} 1`); got != 1 {
		t.Errorf("series of a backend that stays: got %d, want 1", got)
	}
	if got := count(`lbnode_requests_total{code="200",method="GET",pool="",protocol="HTTP/1.1"} 1`); got != 1 {
		t.Errorf("series of no pool: got %d, want 1", got)
	}
}

func TestScrapeWithoutQuorumEnds(t *testing.T) {
	c := webPool(t)
	c.status = cluster.Status{AsSeenBy: "lb1", Degraded: "no leader"}
	c.hang = make(chan struct{}, 1)
	addr := serve(t, c, Config{})
	begun := time.Now()
	if !strings.Contains(scrape(t, addr), "lbnode_cluster_agreement 0") {
		t.Error("scrape does not tell that nodes do not agree")
	}
	if took := time.Since(begun); took > scrapeTimeout {
		t.Errorf("scrape took %v, want less than %v", took, scrapeTimeout)
	}
}

func TestMetricsUnderLoad(t *testing.T) {
	c := webPool(t)
	m := NewMetrics()
	addr := serve(t, c, Config{Metrics: m})
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for i := range 500 {
				useAll(m, "web", fmt.Sprintf("web-%d", i%3))
			}
		})
	}
	for range 3 {
		scrape(t, addr)
	}
	load.Wait()
	if want := `lbnode_rejected_total{reason="no_route"} 2000`; !strings.Contains(scrape(t, addr), want) {
		t.Errorf("scrape does not hold %s", want)
	}
}

func BenchmarkRequest(b *testing.B) {
	m := NewMetrics()
	b.ReportAllocs()
	for b.Loop() {
		m.Request("web", "GET", "HTTP/1.1", 200, time.Millisecond)
		m.Attempt("web", "web-1", 200, time.Millisecond)
	}
}
