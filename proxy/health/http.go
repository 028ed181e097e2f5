package health

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"lbnode/state"
)

// How much of an answer to an http probe is read: the header must fit, the body
// counts as read when this much of it has come.
const (
	maxHeader = 64 << 10
	maxBody   = 64 << 10
)

var (
	errNotHTTP   = errors.New("not an HTTP/1 answer")
	errBigHeader = errors.New("header over 64 KiB")
)

// askHTTP sends a request and judges the answer.
func askHTTP(conn net.Conn, check *state.HealthCheck, b *state.Backend, via string) (result, error) {
	began := time.Now()
	// Written by hand because the path goes out as the operator gave it, which
	// net/url does not promise.
	if _, err := conn.Write(requestFor(check, b, via)); err != nil {
		return result{}, err
	}
	status, body, err := readAnswer(conn, check.Method)
	if err != nil {
		return result{}, err
	}
	reason := strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
	took := time.Since(began).Round(time.Millisecond).Milliseconds()
	switch {
	case !check.Accepts(status):
		if check.Status != "" {
			reason += ", not " + check.Status + ","
		}
		return result{reason: fmt.Sprintf("%s in %d ms", reason, took)}, nil
	case !bytes.Contains(body, []byte(check.Body)):
		return result{reason: fmt.Sprintf("%s without the expected body in %d ms", reason, took)}, nil
	}
	return result{passed: true, reason: reason}, nil
}

// requestFor is what an http check sends. Its own headers go before those that every
// probe has.
func requestFor(check *state.HealthCheck, b *state.Backend, via string) []byte {
	method := check.Method
	if method == "" {
		method = http.MethodGet
	}
	fields := http.Header{"User-Agent": {"lbnode-health"}, "Accept": {"*/*"}}
	if method == http.MethodPost {
		fields.Set("Content-Length", "0")
	}
	if via != "" {
		fields.Set("Via", "1.1 "+via)
	}
	for name, value := range check.Headers {
		fields[name] = []string{value}
	}
	var request bytes.Buffer
	fmt.Fprintf(&request, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, check.Path, authority(check, b))
	fields.Write(&request)
	request.WriteString("Connection: close\r\n\r\n")
	return request.Bytes()
}

// readAnswer reads the final answer, its body too, so that a backend that hangs
// halfway fails.
func readAnswer(conn net.Conn, method string) (status int, body []byte, err error) {
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	response, err := readFinal(bufio.NewReader(limited), method)
	if err != nil && limited.N <= 0 {
		return 0, nil, errBigHeader
	}
	if err != nil {
		return 0, nil, err
	}
	limited.N = maxBody
	body, err = io.ReadAll(response.Body)
	if err != nil && limited.N > 0 {
		return 0, nil, err
	}
	return response.StatusCode, body, nil
}

// readFinal reads up to the end of the header, past interim answers such as 103.
func readFinal(r *bufio.Reader, method string) (*http.Response, error) {
	for {
		response, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return nil, notHTTP(err)
		}
		if response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			return response, nil
		}
	}
}

// notHTTP gives err if it came from the connection. Errors from parsing quote
// what the backend sent, which has no place in logs.
func notHTTP(err error) error {
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return errNotHTTP
}
