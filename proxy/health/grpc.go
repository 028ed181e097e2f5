package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"lbnode/state"
)

// A grpc check is one call of grpc.health.v1.Health/Check. Its two messages have one
// field each, so they are written and read here, and net/http does the rest.

const (
	grpcCheck = "/grpc.health.v1.Health/Check"
	// maxMessage is more than any answer of that method has.
	maxMessage = 4 << 10
)

var (
	errNoHTTP2    = errors.New("no HTTP/2: the server does not agree on h2 in TLS")
	errNotHTTP2   = errors.New("no HTTP/2 answer")
	errBadMessage = errors.New("not an answer of grpc.health.v1.Health")
)

// servingStatus names the statuses of a service.
var servingStatus = [...]string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}

const serving = 1

// askGRPC makes the call on a connection and judges the answer.
func askGRPC(ctx context.Context, conn net.Conn, check *state.HealthCheck, b *state.Backend) (result, error) {
	began := time.Now()
	response, err := callGRPC(ctx, conn, check, b)
	if err != nil {
		return result{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxMessage))
	if err != nil {
		return result{}, notHTTP2(err)
	}
	took := time.Since(began).Round(time.Millisecond).Milliseconds()
	if response.StatusCode != http.StatusOK {
		return result{reason: fmt.Sprintf("%d %s in %d ms", response.StatusCode, http.StatusText(response.StatusCode), took)}, nil
	}
	// An answer without a message has its trailers for a header.
	code := response.Trailer.Get("Grpc-Status") + response.Header.Get("Grpc-Status")
	if code != "0" {
		return result{reason: fmt.Sprintf("%s in %d ms", grpcCode(code), took)}, nil
	}
	status, err := readServing(body)
	if err != nil {
		return result{}, err
	}
	if status != serving {
		return result{reason: fmt.Sprintf("%s in %d ms", servingName(status), took)}, nil
	}
	return result{passed: true, reason: servingName(status)}, nil
}

// callGRPC sends the request. The connection is used once, and the caller closes it.
func callGRPC(ctx context.Context, conn net.Conn, check *state.HealthCheck, b *state.Backend) (*http.Response, error) {
	target := url.URL{Scheme: "http", Host: authority(check, b), Path: grpcCheck}
	if secure, ok := conn.(*tls.Conn); ok {
		if target.Scheme = "https"; secure.ConnectionState().NegotiatedProtocol != "h2" {
			return nil, errNoHTTP2
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(checkRequest(check.Service)))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("Te", "trailers")
	request.Header.Set("User-Agent", "lbnode-health")
	dial := func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	transport := &http.Transport{DialContext: dial, DialTLSContext: dial, Protocols: &http.Protocols{}}
	transport.Protocols.SetHTTP2(true)
	transport.Protocols.SetUnencryptedHTTP2(true)
	response, err := transport.RoundTrip(request)
	return response, notHTTP2(err)
}

// notHTTP2 gives err if it came from the network. The others speak of frames; net/http
// has several for a connection that was closed.
func notHTTP2(err error) error {
	var network net.Error
	if err == nil || errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return errNotHTTP2
}

// checkRequest is a HealthCheckRequest that names the service, behind the five bytes
// that stand before each message: not compressed, and its length.
func checkRequest(service string) []byte {
	var message []byte
	if service != "" {
		message = protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), service)
	}
	framed := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return append(framed, message...)
}

// readServing reads the status in a HealthCheckResponse. One without it is UNKNOWN.
func readServing(body []byte) (status uint64, err error) {
	if len(body) < 5 || body[0] != 0 || uint64(binary.BigEndian.Uint32(body[1:])) != uint64(len(body)-5) {
		return 0, errBadMessage
	}
	for message := body[5:]; len(message) > 0; {
		number, kind, n := protowire.ConsumeField(message)
		if n < 0 {
			return 0, errBadMessage
		}
		if number == 1 && kind == protowire.VarintType {
			_, _, tag := protowire.ConsumeTag(message)
			status, _ = protowire.ConsumeVarint(message[tag:])
		}
		message = message[n:]
	}
	return status, nil
}

func servingName(status uint64) string {
	if status < uint64(len(servingStatus)) {
		return servingStatus[status]
	}
	return fmt.Sprintf("status %d", status)
}

// grpcCode says what the codes mean that servers answer Check with.
func grpcCode(code string) string {
	switch code {
	case "5":
		return "the service is not known there (gRPC status 5)"
	case "12":
		return "grpc.health.v1.Health is not served there (gRPC status 12)"
	case "":
		return "no gRPC status"
	}
	if len(code) > 2 {
		return "a gRPC status that is none"
	}
	return "gRPC status " + code
}
