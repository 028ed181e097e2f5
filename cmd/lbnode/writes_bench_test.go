package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lbnode/cluster/admin"
)

// BenchmarkWrites has 64 clients write through the APIs of three nodes, each
// changing a backend of its own. It reports acknowledged writes a second, how
// long one takes, and the CPU time that all nodes spend on one. The clients are
// plain connections, so that they take little of the machine from the nodes.
func BenchmarkWrites(b *testing.B) {
	nodes, _ := startBenchCluster(b, 1, 64)
	const clients = 64
	took := make([][]time.Duration, clients)
	busy := cpuTime(b, nodes)
	b.ResetTimer()
	began := time.Now()
	var writing sync.WaitGroup
	for i := range clients {
		writing.Go(func() {
			client := dialPatcher(b, nodes[i%len(nodes)].admin)
			for n := i; n < b.N && client != nil; n += clients {
				at := time.Now()
				if !client.setWeight(b, fmt.Sprintf("web-%d", i), 1+n/clients%256) {
					return
				}
				took[i] = append(took[i], time.Since(at))
			}
		})
	}
	writing.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	b.ReportMetric(float64(len(all))/time.Since(began).Seconds(), "writes/s")
	b.ReportMetric(float64((cpuTime(b, nodes)-busy).Microseconds())/float64(b.N), "cpu-us/write")
	reportPercentiles(b, all)
}

// patcher is a connection to an admin API.
type patcher struct {
	net.Conn
	answers *bufio.Reader
}

func dialPatcher(b *testing.B, addr string) *patcher {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Error(err)
		return nil
	}
	b.Cleanup(func() { conn.Close() })
	return &patcher{conn, bufio.NewReader(conn)}
}

// setWeight changes a backend of the first pool and says whether that was
// acknowledged.
func (w *patcher) setWeight(b *testing.B, name string, weight int) bool {
	body := fmt.Sprintf(`{"weight":%d}`, weight)
	fmt.Fprintf(w, "PATCH /v1/pools/pool-0/backends/%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", name, len(body), body)
	response, err := http.ReadResponse(w.answers, nil)
	if err != nil {
		b.Error(err)
		return false
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || !bytes.Contains(text, []byte(fmt.Sprintf(`"weight":%d,`, weight))) {
		b.Errorf("got %s %s, %v", response.Status, text, err)
		return false
	}
	return true
}

// BenchmarkView has 10,000 backends in 100 pools and changes one of them at a
// time. It reports how long after the start of the change the view of every node
// has it, how long a node takes to serve again after a restart, and the memory of
// a node.
func BenchmarkView(b *testing.B) {
	nodes, digest := startBenchCluster(b, 100, 100)
	var took []time.Duration
	b.ResetTimer()
	for n := range b.N {
		took = append(took, changeSeenByAll(b, nodes, n))
	}
	b.StopTimer()
	reportPercentiles(b, took)
	b.ReportMetric(float64(residentBytes(b, nodes[0]))/(1<<20), "MiB/node")
	last := nodes[2]
	digest = last.digest()
	last.kill()
	began := time.Now()
	last.start()
	eventually(b, time.Minute, "the node serves its view again", func() bool {
		return last.digest() == digest && statusOf(b, "http://"+last.admin+"/readyz") == 200
	})
	b.ReportMetric(time.Since(began).Seconds(), "restart-s")
}

// changeSeenByAll changes a backend through one node and waits, with blocking
// reads, until all nodes show it.
func changeSeenByAll(b *testing.B, nodes []*lb, n int) time.Duration {
	pool, name, weight := fmt.Sprintf("pool-%d", n%100), fmt.Sprintf("web-%d", n/100%100), 2+n/10000%255
	path := "/v1/pools/" + pool + "/backends/" + name
	began := time.Now()
	var mu sync.Mutex
	var slowest time.Duration
	var seeing sync.WaitGroup
	for _, node := range nodes {
		index, _ := readBackend(b, "http://"+node.admin+path)
		seeing.Go(func() {
			for seen := 0; seen != weight && !b.Failed(); {
				index, seen = readBackend(b, "http://"+node.admin+path+"?wait=10s&index="+index)
			}
			mu.Lock()
			defer mu.Unlock()
			slowest = max(slowest, time.Since(began))
		})
	}
	began = time.Now()
	if _, _, err := nodes[n%len(nodes)].client.UpdateBackend(b.Context(), pool, name, admin.BackendSpec{Weight: weight}); err != nil {
		b.Fatal(err)
	}
	seeing.Wait()
	return slowest
}

// readBackend returns the index of the view that a node answers from, and the
// weight of the backend in it.
func readBackend(b *testing.B, url string) (index string, weight int) {
	response, err := http.Get(url)
	if err != nil {
		b.Error(err)
		return "", 0
	}
	defer response.Body.Close()
	var backend admin.Backend
	if err := json.NewDecoder(response.Body).Decode(&backend); err != nil {
		b.Error(err)
	}
	return strings.Trim(response.Header.Get("ETag"), `"`), backend.Weight
}

// startBenchCluster starts three nodes with pools of backends in maintenance, which
// nobody probes, and returns them with the digest they agree on.
func startBenchCluster(b *testing.B, pools, backends int) ([]*lb, string) {
	b.Helper()
	nodes := newLBs(b, 3)
	startAll(nodes)
	eventually(b, time.Minute, "the cluster is healthy", func() bool {
		return every(nodes, func(n *lb) bool { v := n.view(); return v != nil && v.Healthy && len(v.Nodes) == 3 })
	})
	for p := range pools {
		spec := admin.PoolSpec{Name: fmt.Sprintf("pool-%d", p)}
		for i := range backends {
			spec.Backends = append(spec.Backends, admin.BackendSpec{
				Name: fmt.Sprintf("web-%d", i), URL: fmt.Sprintf("http://10.%d.0.%d:80", p, i+1), Admin: "maint",
			})
		}
		if _, err := nodes[0].client.CreatePool(context.Background(), spec); err != nil {
			b.Fatal(err)
		}
	}
	digest := ""
	eventually(b, time.Minute, "all nodes have the pools", func() bool {
		digest = nodes[0].digest()
		return every(nodes, func(n *lb) bool { return n.digest() == digest })
	})
	return nodes, digest
}

func reportPercentiles(b *testing.B, took []time.Duration) {
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	for name, share := range map[string]int{"p50-ms": 50, "p99-ms": 99} {
		b.ReportMetric(float64(took[(len(took)-1)*share/100].Microseconds())/1000, name)
	}
}

// cpuTime is the user and system time that the processes of the nodes have used
// (proc(5), stat, fields 14 and 15, in hundredths of a second).
func cpuTime(b *testing.B, nodes []*lb) time.Duration {
	var ticks int
	for _, n := range nodes {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.cmd.Process.Pid))
		if err != nil {
			b.Skip("needs /proc: ", err)
		}
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		for _, field := range fields[11:13] {
			t, err := strconv.Atoi(field)
			if err != nil {
				b.Fatal(err)
			}
			ticks += t
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// residentBytes is the memory of a node's process (proc(5), statm, field 2).
func residentBytes(b *testing.B, n *lb) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.cmd.Process.Pid))
	if err != nil {
		b.Skip("needs /proc: ", err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		b.Fatal(err)
	}
	return pages * os.Getpagesize()
}
