//go:build linux

package main

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestBackendAnswersWholeRequests(t *testing.T) {
	get := "GET /small HTTP/1.1\r\nHost: a\r\n\r\n"
	post := "POST /small HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello"
	for _, c := range []struct {
		name, requests string
		want           []string
	}{
		{"one", get, []string{"small"}},
		{"by path", "GET /medium HTTP/1.1\r\n\r\nGET /large HTTP/1.1\r\n\r\n" + get, []string{"medium", "large", "small"}},
		{"with bodies", post + get + post, []string{"small", "small", "small"}},
		{"half a head", get + "GET /small", []string{"small"}},
		{"half a body", post[:len(post)-1], nil},
		{"empty body", "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", []string{"small"}},
		{"chunked", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", []string{"refusal"}},
	} {
		for _, step := range []int{len(c.requests), 1, 7} {
			if got := feedInSteps(c.requests, step); !slices.Equal(got, c.want) {
				t.Errorf("%s, %d bytes at a time: got %v, want %v", c.name, step, got, c.want)
			}
		}
	}
}

func feedInSteps(requests string, step int) []string {
	a := answers{small: []byte("small"), medium: []byte("medium"), large: []byte("large"), refusal: []byte("refusal")}
	var got []string
	var state talk
	for chunk := range slices.Chunk([]byte(requests), step) {
		state.feed(bytes.Clone(chunk), &a, func(answer []byte) { got = append(got, string(answer)) })
	}
	return got
}

func TestResponseIsWhole(t *testing.T) {
	const response = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody"
	for i := range response {
		if whole, err := responseIsWhole([]byte(response[:i])); whole || err != nil {
			t.Errorf("%q: got %v, %v, want not whole", response[:i], whole, err)
		}
	}
	if whole, err := responseIsWhole([]byte(response)); !whole || err != nil {
		t.Errorf("got %v, %v, want whole", whole, err)
	}
	for _, text := range []string{response + "x", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"} {
		if whole, err := responseIsWhole([]byte(text)); err == nil {
			t.Errorf("%q: got %v, want an error", text, whole)
		}
	}
}

// Requests are due independently of one another: gaps are exponential, with the
// rate's mean and a deviation as great.
func TestSchedule(t *testing.T) {
	const rate = 20000
	due := schedule(rate, 5*time.Second)
	if !slices.IsSorted(due) || due[0] < 0 || due[len(due)-1] >= 5e9 {
		t.Fatalf("got requests from %d to %d, want them in order within 5 s", due[0], due[len(due)-1])
	}
	var squares float64
	for i := 1; i < len(due); i++ {
		gap := float64(due[i]-due[i-1]) / 1e9 * rate
		squares += (gap - 1) * (gap - 1)
	}
	if mean := float64(len(due)) / 5 / rate; !near(mean, 1, 0.01) {
		t.Errorf("got %.3f of the rate, want 1", mean)
	}
	if deviation := math.Sqrt(squares / float64(len(due))); !near(deviation, 1, 0.02) {
		t.Errorf("got a deviation of %.3f mean gaps, want 1", deviation)
	}
	if !slices.Equal(due, schedule(rate, 5*time.Second)) {
		t.Error("got another schedule the second time, want every proxy to have the same")
	}
}

// A server that stands still for a while must show in the latency of all that was
// due meanwhile, not only in that of the requests it held.
func TestOpenLoopSeesStalls(t *testing.T) {
	var stalled bool
	gate := make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gate <- struct{}{}
		if !stalled {
			stalled = true
			<-time.After(300 * time.Millisecond)
		}
		<-gate
		w.Header().Set("Content-Length", "2")
		_, _ = w.Write([]byte("ok"))
	}))
	defer server.Close()
	r := runLoop(t, openLoopOrder{server.Listener.Addr().String(), 500, time.Second, 2})
	if r.Errors > 0 {
		t.Fatalf("got %d errors: %s", r.Errors, r.Detail)
	}
	if share := float64(r.P99) / 1e6; share < 200 {
		t.Errorf("got a p99 of %.0f ms, want about 300: a third of all was due while the server stood still", share)
	}
}

func TestOpenLoopCountsErrors(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	r := runLoop(t, openLoopOrder{server.Listener.Addr().String(), 100, 300 * time.Millisecond, 4})
	if r.Errors != 4 || !strings.Contains(r.Detail, "404") {
		t.Errorf("got %+v, want an error for each connection", r)
	}
}

func runLoop(t *testing.T, o openLoopOrder) openLoopReport {
	t.Helper()
	s := newBackendServer()
	if err := s.listen(0); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(s.epoll)
	defer syscall.Close(s.listener)
	name, err := syscall.Getsockname(s.listener)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	b := &bench{address: fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)}
	var r openLoopReport
	go func() {
		r, err = b.openLoop(t.Context(), o)
		close(done)
		http.DefaultClient.CloseIdleConnections() // ends the last turn
	}()
	for {
		select {
		case <-done:
			if err != nil {
				t.Fatal(err)
			}
			return r
		default:
			if err := s.turn(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestReverseProxyForwards(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Got-Forwarded-For", r.Header.Get("X-Forwarded-For"))
	}))
	defer backend.Close()
	target, err := url.Parse(backend.URL)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(newReverseProxy(target))
	defer front.Close()
	response, err := http.Get(front.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got := response.Header.Get("Got-Forwarded-For"); response.StatusCode != 200 || got != "127.0.0.1" {
		t.Errorf("got status %d, forwarded for %q, want 200, 127.0.0.1", response.StatusCode, got)
	}
}

func TestFindMetric(t *testing.T) {
	const text = "# TYPE a counter\na_total 1\na 2.5e+06\n"
	if got := findMetric(strings.NewReader(text), "a"); got != 2.5e6 {
		t.Errorf("got %v, want 2.5e6", got)
	}
	if got := findMetric(strings.NewReader(text), "b"); got != 0 {
		t.Errorf("got %v, want 0", got)
	}
}
