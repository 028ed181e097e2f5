package state

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The kinds of health checks.
const (
	CheckHTTP = "http"
	CheckTCP  = "tcp"
	CheckGRPC = "grpc"
	// CheckAgent asks an agent on the backend's host, by the protocol of HAProxy's
	// agent-check: https://docs.haproxy.org/3.0/configuration.html#5.2-agent-check
	CheckAgent = "agent"
)

// What HealthCheck.TLS may say. TLSAuto is the default and kept as the empty string.
const (
	TLSAuto     = "auto"
	TLSOn       = "on"
	TLSOff      = "off"
	TLSInsecure = "insecure"
)

// CheckNone takes a text of a health check away.
const CheckNone = "none"

const (
	defaultMethod = "GET"
	defaultStatus = "200-399"

	maxHeaders   = 16
	maxCheckText = 1024 // bytes of a header or an expected body
	maxService   = 255
)

// HealthCheck says how the backends of a pool are probed. What a kind of check does
// not use is kept, and means nothing until another kind looks at it.
type HealthCheck struct {
	// Type is CheckHTTP (a request, whose answer must be as expected), CheckTCP
	// (connecting passes), CheckGRPC (the method Check of grpc.health.v1.Health must
	// answer SERVING) or CheckAgent (what listens on Port must not say that it is down).
	Type string `json:"type"`
	// Path is the request target of an http check.
	Path string `json:"path"`
	// Interval is the time between the starts of two probes.
	Interval Duration `json:"interval"`
	// Timeout bounds one probe; it is at most Interval.
	Timeout Duration `json:"timeout"`
	// Rise is how many probes in a row must pass before an unhealthy backend is
	// reported healthy.
	Rise int `json:"rise"`
	// Fall is how many probes in a row must fail before a healthy backend is
	// reported unhealthy.
	Fall int `json:"fall"`

	// UnhealthyInterval takes the place of Interval while a node does not think the
	// backend healthy. A probe that takes longer puts the next one off. 0 is Interval; in
	// a change, NoDuration or the pool's interval makes it 0.
	UnhealthyInterval Duration `json:"unhealthy_interval,omitempty"`
	// Method is that of an http check, GET if it is empty. In a change, GET makes it
	// empty.
	Method string `json:"method,omitempty"`
	// Host, unless empty, is what an http or grpc check names as the host that it asks,
	// also in TLS. Otherwise that is the backend's. In a change, CheckNone makes it empty.
	Host string `json:"host,omitempty"`
	// Status is which statuses of an answer pass, such as "200" or "200-299,401"; if it
	// is empty, 200 to 399. In a change, "200-399" makes it empty.
	Status string `json:"status,omitempty"`
	// Body, unless empty, must stand in the first 64 KiB of an answer's body. In a
	// change, CheckNone makes it empty.
	Body string `json:"body,omitempty"`
	// TLS is TLSOn, TLSOff, TLSInsecure (with TLS, but whatever the certificate) or
	// empty: as traffic is sent, but that tcp and agent checks make no handshake. In a
	// change, TLSAuto makes it empty.
	TLS string `json:"tls,omitempty"`
	// Port, unless 0, is probed instead of the backend's own. In a change, NoLimit makes
	// it 0.
	Port int `json:"port,omitempty"`
	// Service is what a grpc check asks for, the server as a whole if it is empty. In a
	// change, CheckNone makes it empty.
	Service string `json:"service,omitempty"`
	// Headers are what an http check sends besides, by canonical name. A change adds to
	// those there are; an empty value takes a header away.
	Headers map[string]string `json:"headers,omitempty"`
}

// DefaultHealthCheck is the check of a pool that names no other.
func DefaultHealthCheck() HealthCheck { return DefaultSettings().HealthCheck }

// Equal says whether two checks are the same.
func (h HealthCheck) Equal(other HealthCheck) bool { return reflect.DeepEqual(h, other) }

// Accepts says whether an answer of that status passes.
func (h *HealthCheck) Accepts(status int) bool {
	for part := range strings.SplitSeq(either(h.Status, defaultStatus), ",") {
		if low, high, ok := statusRange(part); ok && low <= status && status <= high {
			return true
		}
	}
	return false
}

// statusRange reads "401" or "200-299".
func statusRange(text string) (low, high int, ok bool) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	low, okLow := statusCode(first)
	high, okHigh := statusCode(last)
	return low, high, okLow && okHigh && low <= high
}

func statusCode(text string) (int, bool) {
	code, err := strconv.Atoi(text)
	return code, err == nil && len(text) == 3 && code >= 100 && code <= 599
}

// checkSettings are the rows of HealthCheck.
var checkSettings = []setting{
	{path: "health_check.type", since: 1, means: "what a probe does: an HTTP request, a connection, the gRPC health service, or a question to an agent",
		rule: choice{
			at:      func(s *Settings) *string { return &s.HealthCheck.Type },
			initial: CheckHTTP,
			words:   []word{{CheckHTTP, 1}, {CheckTCP, 1}, {CheckGRPC, 4}, {CheckAgent, 4}},
		}},
	{path: "health_check.path", since: 1, means: "the request target of an `http` check",
		rule: text{
			at:      func(s *Settings) *string { return &s.HealthCheck.Path },
			initial: "/",
			want:    "a path that begins with / and holds no space or control character",
			ok:      func(path string) bool { return strings.HasPrefix(path, "/") && printable(path) },
		}, needs: needsType(CheckHTTP)},
	{path: "health_check.interval", since: 1, means: "the time between the starts of two probes",
		rule: duration{
			at:      func(s *Settings) *Duration { return &s.HealthCheck.Interval },
			initial: 2 * time.Second, least: minInterval, most: maxDuration,
		}},
	{path: "health_check.timeout", since: 1, means: "bounds one probe; at most `interval`",
		rule: duration{
			at:      func(s *Settings) *Duration { return &s.HealthCheck.Timeout },
			initial: time.Second, least: time.Millisecond, most: maxDuration,
		}},
	{path: "health_check.rise", since: 1, means: "how many probes in a row must pass before an unhealthy backend is healthy",
		rule: count{
			at:      func(s *Settings) *int { return &s.HealthCheck.Rise },
			initial: 2, least: 1, most: 100,
		}},
	{path: "health_check.fall", since: 1, means: "how many probes in a row must fail before a healthy backend is unhealthy",
		rule: count{
			at:      func(s *Settings) *int { return &s.HealthCheck.Fall },
			initial: 3, least: 1, most: 100,
		}},
	{path: "health_check.unhealthy_interval", since: 4, means: "takes the place of `interval` while a backend is not healthy",
		rule: duration{
			at:    func(s *Settings) *Duration { return &s.HealthCheck.UnhealthyInterval },
			least: minInterval, most: maxDuration, optional: true,
		}},
	{path: "health_check.method", since: 4, means: "the method of an `http` check",
		rule: choice{
			at:   func(s *Settings) *string { return &s.HealthCheck.Method },
			none: defaultMethod, words: []word{{"HEAD", 4}, {"OPTIONS", 4}, {"POST", 4}},
		}, needs: needsType(CheckHTTP)},
	{path: "health_check.host", since: 4, means: "the host that an `http` or `grpc` check asks for, in `Host` and in TLS",
		rule: text{
			at:    func(s *Settings) *string { return &s.HealthCheck.Host },
			none:  CheckNone,
			want:  "a host name or an IP address without a port, or " + CheckNone,
			ok:    validHost,
			clean: canonicalHost,
		}, needs: needsType(CheckHTTP, CheckGRPC)},
	{path: "health_check.status", since: 4, means: "which statuses of an answer pass",
		rule: text{
			at:   func(s *Settings) *string { return &s.HealthCheck.Status },
			none: defaultStatus,
			want: "a list of statuses such as 200-299,401",
			ok:   validStatus,
		}, needs: needsType(CheckHTTP)},
	{path: "health_check.body", since: 4, means: "a text that must stand in the first 64 KiB of the answer",
		rule: text{
			at:   func(s *Settings) *string { return &s.HealthCheck.Body },
			none: CheckNone,
			want: fmt.Sprintf("a text of at most %d bytes, or %s", maxCheckText, CheckNone),
			ok:   func(body string) bool { return len(body) <= maxCheckText },
		}, needs: needsType(CheckHTTP)},
	{path: "health_check.tls", since: 4, means: "whether probes use TLS; `auto` is as traffic does, `insecure` takes any certificate",
		rule: choice{
			at:   func(s *Settings) *string { return &s.HealthCheck.TLS },
			none: TLSAuto, words: []word{{TLSOn, 4}, {TLSOff, 4}, {TLSInsecure, 4}},
		}},
	{path: "health_check.port", since: 4, means: "another port of the backend's host to probe; an `agent` check needs it",
		rule: count{
			at:    func(s *Settings) *int { return &s.HealthCheck.Port },
			least: 1, most: 65535, none: "the backend's own",
		}},
	{path: "health_check.service", since: 4, means: "the service that a `grpc` check asks for; without it, the server as a whole",
		rule: text{
			at:   func(s *Settings) *string { return &s.HealthCheck.Service },
			none: CheckNone,
			want: fmt.Sprintf("a name of at most %d characters without spaces and control characters, or %s", maxService, CheckNone),
			ok:   func(service string) bool { return len(service) <= maxService && printable(service) },
		}, needs: needsType(CheckGRPC)},
	{path: "health_check.headers", since: 4, means: "what an `http` check sends besides; a change adds to them, and an empty value takes one away",
		rule: headers{
			at: func(s *Settings) *map[string]string { return &s.HealthCheck.Headers },
		}, needs: needsType(CheckHTTP)},
}

// needsType is for settings that only some kinds of check look at.
func needsType(types ...string) func(*Settings) string {
	return func(s *Settings) string {
		if slices.Contains(types, s.HealthCheck.Type) {
			return ""
		}
		return "health_check.type " + strings.Join(types, " or ")
	}
}

func (h *HealthCheck) agree() *Error {
	switch {
	case h.Type == CheckAgent && h.Port == 0:
		return invalid("health_check.port", "must be given with the type agent: an agent listens on a port of its own")
	case h.Timeout > h.Interval:
		return invalid("health_check.timeout", "must be at most health_check.interval, %s, not %s", h.Interval, h.Timeout)
	case h.Body != "" && h.Method == "HEAD":
		return invalid("health_check.body", "must not be given with the method HEAD, whose answers have no body")
	}
	return nil
}

func validStatus(list string) bool {
	for part := range strings.SplitSeq(list, ",") {
		if _, _, ok := statusRange(part); !ok || len(list) > maxService {
			return false
		}
	}
	return true
}

// reservedHeaders are those on which it hangs how an http check is read.
var reservedHeaders = []string{"Connection", "Content-Length", "Expect", "Host", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// validHeaders looks at them in the order of their names: all nodes must refuse a
// command with the same words.
func validHeaders(headers map[string]string) *Error {
	if len(headers) > maxHeaders {
		return invalid("health_check.headers", "must be at most %d, not %d", maxHeaders, len(headers))
	}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		value := headers[name]
		switch {
		case !headerName.MatchString(name):
			return invalid("health_check.headers", "must have names of letters, digits and dashes, not %q", name)
		case name == "Host":
			return invalid("health_check.headers", "must not hold Host; give health_check.host instead")
		case slices.Contains(reservedHeaders, name):
			return invalid("health_check.headers", "must not hold %s, which the check itself decides on", name)
		case len(value) > maxCheckText || strings.TrimSpace(value) != value || strings.ContainsFunc(value, isControl):
			return invalid("health_check.headers", "must have values of at most %d bytes without control characters or space around them, not %q", maxCheckText, value)
		}
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
