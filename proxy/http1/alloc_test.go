package http1

import "testing"

// What is done for each request must leave nothing behind for the collector.
func TestCodecDoesNotAllocate(t *testing.T) {
	limits := DefaultLimits()
	var request Request
	var response Response
	var answer body
	in := &inlet{}
	in.mem = make([]byte, smallBuffer)
	asked := []byte("POST http://a.example/path?query HTTP/1.1\r\nHost: a.example\r\nUser-Agent: me\r\nConnection: keep-alive, X-Foo, TE\r\n" +
		"X_Forwarded_For: x\r\nX-Request-Id: 1\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
	answered := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nConnection: close\r\nDate: now\r\nX-Any: y\r\n\r\n")
	chunked := []byte("5;extension\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\nHost: a\r\n\r\n")
	out := make([]byte, 0, 100)
	tests := map[string]func() bool{
		"request": func() bool {
			request.Reset(&limits)
			n, err := request.Parse(asked)
			return n == len(asked) && err == nil && request.chunked && request.named.has([]byte("x-foo"))
		},
		"half a request": func() bool {
			request.Reset(&limits)
			n, err := request.Parse(asked[:50])
			return n == 0 && err == nil
		},
		"bad request": func() bool {
			request.Reset(&limits)
			_, err := request.Parse([]byte("GET / HTTP/1.1\r\nX : y\r\n\r\n"))
			return err == errName
		},
		"response": func() bool {
			response.Reset(&limits)
			n, err := response.Parse(answered)
			return n == len(answered) && err == nil && response.status == 200
		},
		"chunks": func() bool {
			in.from, in.to = 0, copy(in.mem, chunked)
			answer.begin(in, byChunks, 0, &limits)
			for {
				if data, err := answer.next(); err != nil || len(data) == 0 {
					break
				}
			}
			out = answer.appendTrailers(out[:0])
			answer.finish()
			return answer.ended && answer.count == 6 && in.len() == 0
		},
	}
	for name, do := range tests {
		t.Run(name, func(t *testing.T) {
			if !do() {
				t.Fatal("it does not do what is measured")
			}
			if got := testing.AllocsPerRun(100, func() { do() }); got != 0 {
				t.Errorf("got %v allocations, want 0", got)
			}
		})
	}
}
