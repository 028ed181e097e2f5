package http1

import (
	"bytes"
	"fmt"
	"testing"
)

// unchunk takes a body apart that arrives in parts, up to these lengths.
func unchunk(data []byte, limits *Limits, ends ...int) (content, trailers, rest []byte, err error) {
	in := &inlet{}
	defer in.drop()
	var b body
	b.begin(in, byChunks, 0, limits)
	fed := 0
	for _, end := range append(ends, len(data)) {
		for fed < end {
			n := copy(in.room(smallBuffer), data[fed:end])
			fed, in.to = fed+n, in.to+n
			if content, err = drain(&b, content); err != nil {
				return content, nil, nil, err
			}
		}
		if b.ended {
			trailers = b.appendTrailers(nil)
			b.finish()
			return content, trailers, bytes.Clone(append(in.bytes(), data[fed:]...)), nil
		}
	}
	return content, nil, nil, errCut
}

// drain takes what is there already.
func drain(b *body, content []byte) ([]byte, error) {
	for {
		piece, err := b.next()
		if len(piece) == 0 || err != nil {
			return content, err
		}
		content = append(content, piece...)
	}
}

func TestChunks(t *testing.T) {
	tests := map[string]struct {
		send, content, trailers, rest string
		err                           error
	}{
		"none":               {send: "0\r\n\r\n"},
		"one":                {send: "5\r\nhello\r\n0\r\n\r\n", content: "hello"},
		"two":                {send: "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", content: "hello!"},
		"another message":    {send: "1\r\n!\r\n0\r\n\r\nGET /", content: "!", rest: "GET /"},
		"digits":             {send: "0a\r\n0123456789\r\nA;x\r\n0123456789\r\n00\r\n\r\n", content: "01234567890123456789"},
		"trailers":           {send: "0\r\nX: 1\r\nHost: a\r\nY:2\r\n\r\n.", trailers: "X: 1\r\nY: 2\r\n", rest: "."},
		"like chunks":        {send: "5\r\n0\r\n\r\n\r\n0\r\n\r\n", content: "0\r\n\r\n"},
		"cut in size":        {send: "5", err: errCut},
		"cut behind size":    {send: "5\r\n", err: errCut},
		"cut in data":        {send: "5\r\nhel", content: "hel", err: errCut},
		"cut in the end":     {send: "5\r\nhello\r\n0\r\n", content: "hello", err: errCut},
		"cut in trailers":    {send: "0\r\nX: y\r\n", err: errCut},
		"long line":          {send: "5;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", err: errChunkLine},
		"line just fits":     {send: "0;aaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n"},
		"line just too long": {send: "0;aaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n", err: errChunkLine},
		"trailers too large": {send: "0\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n", err: errTrailers},
		"largest size":       {send: "7fffffffffffffff\r\na", content: "a", err: errCut},
		"larger size":        {send: "8000000000000000\r\na", err: errChunk},
		"far larger size":    {send: "ffffffffffffffffff\r\na", err: errChunk},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			content, trailers, rest, err := unchunk([]byte(test.send), smallLimits())
			if string(content) != test.content || string(trailers) != test.trailers || string(rest) != test.rest || err != test.err {
				t.Errorf("got %q, %q, %q, %v; want %+v", content, trailers, rest, err, test)
			}
			checkChunkSplits(t, []byte(test.send))
		})
	}
}

func checkChunkSplits(t *testing.T, data []byte) {
	t.Helper()
	limits := smallLimits()
	unchunkAll := func(ends ...int) string {
		content, trailers, rest, err := unchunk(data, limits, ends...)
		return fmt.Sprintf("%q %q %q %v", content, trailers, rest, err)
	}
	whole := unchunkAll()
	var all []int
	for i := range data {
		all = append(all, i)
		if got := unchunkAll(i); got != whole {
			t.Fatalf("cut at %d: got %s, want %s; %q", i, got, whole, data)
		}
	}
	if got := unchunkAll(all...); got != whole {
		t.Fatalf("byte by byte: got %s, want %s; %q", got, whole, data)
	}
}

// The bodies among the inputs, in all parts.
func TestChunksInParts(t *testing.T) {
	for _, kind := range []string{"requests", "responses"} {
		for _, data := range readInputs(t, kind) {
			if _, body, ok := bytes.Cut(data, []byte("\r\n\r\n")); ok {
				checkChunkSplits(t, body[:min(len(body), 500)])
			}
		}
	}
}
