package proxy

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"lbnode/state"
)

// pieces is a body that takes a while to read.
type pieces struct {
	left  int
	pause time.Duration
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	<-time.After(p.pause)
	p.left--
	return copy(b, make([]byte, 20_000)), nil
}

// An answer that comes before the body has been sent reaches clients as they are: one that
// looks at it only when it has sent all included.
func TestEarlyAnswers(t *testing.T) {
	refuses := startServer(t, "refuses", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	})
	for _, test := range []struct {
		name     string
		backends []state.Backend
		want     int
	}{
		{"the backend's", []state.Backend{refuses.backend()}, http.StatusRequestEntityTooLarge},
		{"no backend", nil, http.StatusServiceUnavailable},
		{"no backend can be reached", []state.Backend{refusing(t, "gone")}, http.StatusBadGateway},
	} {
		for name, body := range map[string]pieces{" at once": {500, 0}, " slowly": {20, 70 * time.Millisecond}} {
			t.Run(test.name+name, func(t *testing.T) {
				t.Parallel()
				_, url := startProxy(t, Config{}, test.backends...)
				res, err := client(t).Post(url, "text/plain", &body)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if res.StatusCode != test.want {
					t.Errorf("got %d, want %d", res.StatusCode, test.want)
				}
			})
		}
	}
}

// A handler that answers first and reads on gets the body, whatever the client sends it with.
func TestAnswerFirstReadOn(t *testing.T) {
	got := make(chan int64, 1)
	b := startServer(t, "b", func(w http.ResponseWriter, r *http.Request) {
		err := errors.Join(http.NewResponseController(w).EnableFullDuplex(), http.NewResponseController(w).Flush())
		if err != nil {
			t.Error(err)
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			t.Error(err)
		}
		io.WriteString(w, "read")
		got <- n
	})
	_, url := startProxy(t, Config{}, b.backend())
	for range 3 {
		res, err := client(t).Post(url, "text/plain", &pieces{20, 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if string(body) != "read" || err != nil {
			t.Errorf("got %q, %v; want the answer", body, err)
		}
		if n := <-got; n != 20*20_000 {
			t.Errorf("the backend got %d bytes, want %d", n, 20*20_000)
		}
	}
}
