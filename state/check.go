package state

import (
	"maps"
	"net/textproto"
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
// not use is kept and means nothing.
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
func DefaultHealthCheck() HealthCheck {
	return HealthCheck{
		Type:     CheckHTTP,
		Path:     "/",
		Interval: Duration(2 * time.Second),
		Timeout:  Duration(time.Second),
		Rise:     2,
		Fall:     3,
	}
}

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

func (h HealthCheck) over(old HealthCheck) HealthCheck {
	made := HealthCheck{
		Type:     either(h.Type, old.Type),
		Path:     either(h.Path, old.Path),
		Interval: either(h.Interval, old.Interval),
		Timeout:  either(h.Timeout, old.Timeout),
		Rise:     either(h.Rise, old.Rise),
		Fall:     either(h.Fall, old.Fall),

		UnhealthyInterval: optional(h.UnhealthyInterval, old.UnhealthyInterval),
		Method:            unless(defaultMethod, h.Method, old.Method),
		Host:              unless(CheckNone, canonicalHost(h.Host), old.Host),
		Status:            unless(defaultStatus, h.Status, old.Status),
		Body:              unless(CheckNone, h.Body, old.Body),
		TLS:               unless(TLSAuto, h.TLS, old.TLS),
		Port:              limit(h.Port, old.Port),
		Service:           unless(CheckNone, h.Service, old.Service),
		Headers:           mergedHeaders(h.Headers, old.Headers),
	}
	if made.UnhealthyInterval == made.Interval {
		made.UnhealthyInterval = 0
	}
	return made
}

// unless gives what is left of old by a change, where one word takes it away.
func unless(word, given, old string) string {
	if given == word {
		return ""
	}
	return either(given, old)
}

// mergedHeaders never changes old, which views share. Of two spellings of one name
// the later in the order of the alphabet counts: all nodes must make the same of it.
func mergedHeaders(given, old map[string]string) map[string]string {
	if len(given) == 0 {
		return old
	}
	merged := maps.Clone(old)
	if merged == nil {
		merged = map[string]string{}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if value := given[name]; value == "" {
			delete(merged, textproto.CanonicalMIMEHeaderKey(name))
		} else {
			merged[textproto.CanonicalMIMEHeaderKey(name)] = value
		}
	}
	if len(merged) == 0 {
		return nil
	}
	return merged
}

// version is the lowest in which the check can be written.
func (h *HealthCheck) version() int {
	plain := HealthCheck{Type: h.Type, Path: h.Path, Interval: h.Interval, Timeout: h.Timeout, Rise: h.Rise, Fall: h.Fall}
	switch h.Type {
	case "", CheckHTTP, CheckTCP:
		if len(h.Headers) == 0 && h.Equal(plain) {
			return 1
		}
	}
	return 4
}

func (h *HealthCheck) validate() *Error {
	switch h.Type {
	case CheckHTTP, CheckTCP, CheckGRPC:
	case CheckAgent:
		if h.Port == 0 {
			return invalid("health_check.port", "must be given with the type agent: an agent listens on a port of its own")
		}
	default:
		return invalid("health_check.type", "must be http, tcp, grpc or agent, not %q", h.Type)
	}
	if !strings.HasPrefix(h.Path, "/") || !printable(h.Path) {
		return invalid("health_check.path", "must begin with / and hold no space or control character, not %q", h.Path)
	}
	if err := h.validateTimes(); err != nil {
		return err
	}
	if h.Rise < 1 || h.Rise > 100 {
		return invalid("health_check.rise", "must be 1 to 100, not %d", h.Rise)
	}
	if h.Fall < 1 || h.Fall > 100 {
		return invalid("health_check.fall", "must be 1 to 100, not %d", h.Fall)
	}
	if err := h.validateRequest(); err != nil {
		return err
	}
	return h.validateAnswer()
}

func (h *HealthCheck) validateTimes() *Error {
	if err := validDuration("health_check.interval", h.Interval, minInterval, maxDuration); err != nil {
		return err
	}
	if h.UnhealthyInterval != 0 {
		if err := validDuration("health_check.unhealthy_interval", h.UnhealthyInterval, minInterval, maxDuration); err != nil {
			return err
		}
	}
	return validDuration("health_check.timeout", h.Timeout, time.Millisecond, time.Duration(h.Interval))
}

// validateRequest checks where and how a check asks.
func (h *HealthCheck) validateRequest() *Error {
	switch h.Method {
	case "", "HEAD", "OPTIONS", "POST":
	default:
		return invalid("health_check.method", "must be GET, HEAD, OPTIONS or POST, not %q", h.Method)
	}
	switch h.TLS {
	case "", TLSOn, TLSOff, TLSInsecure:
	default:
		return invalid("health_check.tls", "must be %s, %s, %s or %s, not %q", TLSAuto, TLSOn, TLSOff, TLSInsecure, h.TLS)
	}
	if h.Host != "" && !validHost(h.Host) {
		return invalid("health_check.host", "must be a host name or an IP address without a port, or %s, not %q", CheckNone, h.Host)
	}
	if h.Port < 0 || h.Port > 65535 {
		return invalid("health_check.port", "must be 1 to 65535, or %d for the backend's own, not %d", NoLimit, h.Port)
	}
	if len(h.Service) > maxService || !printable(h.Service) {
		return invalid("health_check.service", "must be at most %d characters without spaces and control characters, or %s, not %q", maxService, CheckNone, h.Service)
	}
	return validHeaders(h.Headers)
}

// validateAnswer checks what a check expects.
func (h *HealthCheck) validateAnswer() *Error {
	for part := range strings.SplitSeq(either(h.Status, defaultStatus), ",") {
		if _, _, ok := statusRange(part); !ok || len(h.Status) > maxService {
			return invalid("health_check.status", "must list statuses such as 200-299,401, not %q", h.Status)
		}
	}
	if len(h.Body) > maxCheckText {
		return invalid("health_check.body", "must be at most %d bytes, not %d", maxCheckText, len(h.Body))
	}
	if h.Body != "" && h.Method == "HEAD" {
		return invalid("health_check.body", "must not be given with the method HEAD, whose answers have no body")
	}
	return nil
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
