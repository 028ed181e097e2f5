package state

import (
	"fmt"
	"net"
	"strconv"
	"time"
)

// Health is what the cluster has agreed about a backend. An operator's wish is
// [Admin]; the two are never mixed.
type Health string

// The healths of a backend. A new backend is starting and gets no traffic until
// the first verdict.
const (
	Starting  Health = "starting"
	Healthy   Health = "healthy"
	Unhealthy Health = "unhealthy"
)

// Admin is what an operator wants of a backend.
type Admin string

// The admin states: take traffic; take no new requests but finish those under
// way; be left alone, without traffic.
const (
	Ready Admin = "ready"
	Drain Admin = "drain"
	Maint Admin = "maint"
)

// DefaultPool is the pool that is made on first use and that gets all traffic
// while a cluster has no routes.
const DefaultPool = "default"

// The strategies by which a pool picks its next backend: in turn, the default; at random;
// that with the fewest requests under way; the better of two drawn at random, by how long
// they take; the one where the request should be over first; and always the same one for
// requests that have something in common. All go by weight.
const (
	RoundRobin       = "round_robin"
	Random           = "random"
	LeastConnections = "least_connections"
	P2C              = "p2c"
	LeastTime        = "least_time"
	Hash             = "hash"
)

// What Pool.HashOn may begin with. HashHeader, HashCookie and HashQuery have a colon and a
// name behind them.
const (
	HashClient = "client"
	HashPath   = "path"
	HashHeader = "header"
	HashCookie = "cookie"
	HashQuery  = "query"
)

// The versions of the PROXY protocol in which a pool's backends can be told of the
// client, and the word by which a change takes that away. See
// https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt.
const (
	ProxyV1   = "v1"
	ProxyV2   = "v2"
	ProxyNone = "none"
)

// What a pool does when none of its backends is eligible: answer 503, or send
// requests to backends that are thought unhealthy.
const (
	Reject   = "reject"
	FailOpen = "fail_open"
)

// Duration is a time.Duration that is written as text such as "2s" or "500ms".
type Duration time.Duration

// NoDuration takes an optional time away in a change, where 0 leaves it as it was. Its
// text is also "none".
const NoDuration Duration = -1

// String gives the form that time.ParseDuration reads.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	if string(text) == "none" {
		*d = NoDuration
		return nil
	}
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 2s or 500ms", text)
	}
	*d = Duration(parsed)
	return nil
}

// Pool is a named, ordered set of backends with one strategy, one health check
// and one set of timeouts. In a command, a zero field is one that was not given:
// creating takes the default for it, updating leaves it as it was.
type Pool struct {
	Name     string `json:"name"`
	Strategy string `json:"strategy"`
	// HashOn is what requests have in common that strategy Hash sends to one backend: the
	// client's address if it is empty, the path, or the value of a header, a cookie or
	// a query key, such as "cookie:session". In a change, HashClient takes it away, and so
	// does another strategy.
	HashOn      string      `json:"hash_on,omitempty"`
	HealthCheck HealthCheck `json:"health_check"`
	Timeouts    Timeouts    `json:"timeouts"`
	Limits      Limits      `json:"limits,omitzero"`
	Sticky      Sticky      `json:"sticky,omitzero"`
	Outlier     Outlier     `json:"outlier,omitzero"`
	WhenAllDown string      `json:"when_all_down"`
	// Panic is the share of the ready backends, in percent, below which health is
	// ignored: if fewer are eligible, all get requests, so that the few are not crushed.
	// Those that nobody has probed yet do not count.
	// 0 is never; in a change, NoLimit takes it away.
	Panic int `json:"panic_threshold,omitempty"`
	// SlowStart is the time in which a backend that has become healthy or ready comes
	// to its whole share of the traffic. 0 is at once; in a change, NoDuration takes it
	// away.
	SlowStart Duration `json:"slow_start,omitempty"`
	// ProxyProtocol is the version of the PROXY protocol, ProxyV1 or ProxyV2, in which
	// backends are told of the client; none if it is empty. In a change, ProxyNone takes
	// it away.
	ProxyProtocol string    `json:"proxy_protocol,omitempty"`
	Backends      []Backend `json:"backends"`
}

// Timeouts bound a proxied request.
type Timeouts struct {
	// Connect bounds the time to open a connection to a backend.
	Connect Duration `json:"connect"`
	// Request is how long a request may make no progress: until the backend
	// begins to answer, and then between two pieces in either direction.
	Request Duration `json:"request"`
	// Try is how long one backend has to begin its answer, if less than Request: then
	// the request goes to another, if it may be repeated. 0 is as long as Request; in a
	// change, NoDuration makes it 0.
	Try Duration `json:"try,omitempty"`
	// Hedge is after how long without an answer a request that may be repeated is sent
	// to a second backend too, within the budget of retries. What answers first is passed
	// on. 0 is never; in a change, NoDuration makes it 0.
	Hedge Duration `json:"hedge,omitempty"`
}

// Limits protect the backends of a pool. They hold for each backend and each node by
// itself. Zero is no limit; in a change it means that the limit stays, and NoLimit
// takes it away.
type Limits struct {
	// Connections is how many a node may have open to a backend.
	Connections int `json:"connections,omitempty"`
	// Pending is how many requests may wait at a node for one of Connections, at most
	// for as long as connecting may take. Others go to another backend.
	Pending int `json:"pending,omitempty"`
	// Failures is how many requests in a row must fail for a node to send a backend
	// no more: its circuit opens.
	Failures int `json:"failures,omitempty"`
	// Open is how long a circuit stays open before one request is sent as a trial.
	// 0 is 10 s.
	Open Duration `json:"open,omitempty"`
}

// Outlier says when a node ejects a backend: sends it nothing for a while although its
// probes pass. Zero is off, or the default; in a change it means that the value stays,
// and NoLimit or NoDuration takes it away.
type Outlier struct {
	// Consecutive is how many requests in a row must fail, or be answered with 5xx.
	Consecutive int `json:"consecutive,omitempty"`
	// SuccessRate is by how many percent points a backend must succeed less often than
	// those of its pool do on average, of those that had requests enough to tell.
	SuccessRate int `json:"success_rate,omitempty"`
	// Time is how long the first ejection lasts; each that follows soon after lasts
	// as much longer, up to ten times it. 0 is 10 s.
	Time Duration `json:"time,omitempty"`
	// MaxShare is the most of a pool's backends that are ejected at a time, in percent.
	// 0 is 50.
	MaxShare int `json:"max_share,omitempty"`
}

// On says whether backends are ejected at all.
func (o Outlier) On() bool { return o.Consecutive > 0 || o.SuccessRate > 0 }

// Base is how long the first ejection lasts.
func (o Outlier) Base() time.Duration { return time.Duration(either(o.Time, Duration(10*time.Second))) }

// MostOf is how many of n backends may be ejected at a time.
func (o Outlier) MostOf(n int) int { return n * either(o.MaxShare, 50) / 100 }

// NoLimit takes a limit away; NoDuration does a time.
const NoLimit = -1

// Sticky keeps a client at the backend that has answered it first, by a cookie. Zero is
// not at all.
type Sticky struct {
	// Cookie is its name. In a change, StickyNone takes it away, and the rest with it.
	Cookie string `json:"cookie,omitempty"`
	// Drain says what becomes of clients whose backend is drained: StickyStay, which is
	// meant if it is empty, or StickyMove.
	Drain string `json:"drain,omitempty"`
}

// The words of Sticky: no cookie; clients stay at a backend that is drained until they
// go, or move to another with their next request.
const (
	StickyNone = "none"
	StickyStay = "stay"
	StickyMove = "move"
)

// Backend is one server that answers requests. ID, Health and Since belong to
// the cluster, the rest to the operator.
type Backend struct {
	// ID names this backend for as long as it exists and is never used again.
	ID string `json:"id"`
	// Name is unique in the pool.
	Name string `json:"name"`
	// Protocol is "http" or "https".
	Protocol string `json:"protocol"`
	Host     string `json:"host"`
	Port     int    `json:"port"`
	// Weight is the backend's share of the traffic beside the others', 1 to 256.
	Weight int `json:"weight"`
	// Backup backends get traffic only while no other of the pool is eligible.
	Backup bool   `json:"backup,omitempty"`
	Admin  Admin  `json:"admin"`
	Health Health `json:"health"`
	// Since is when Health was last changed, in milliseconds since 1970, by the
	// clock of the node that proposed the change.
	Since int64 `json:"since"`
	// Reason is why the backend is unhealthy: a node's name and what its probe found, or
	// which nodes had ejected it.
	Reason string `json:"reason,omitempty"`
	// Falls is how often the backend became unhealthy of late, as [Backend.NextFalls]
	// counts.
	Falls int `json:"falls,omitempty"`
	// Agent is what the backend's agent asks for, nothing without an agent check.
	Agent Wish `json:"agent,omitzero"`
}

// Addr is the address to connect to, host:port.
func (b *Backend) Addr() string { return net.JoinHostPort(b.Host, strconv.Itoa(b.Port)) }

// URL is the backend's address as a URL without a path.
func (b *Backend) URL() string { return b.Protocol + "://" + b.Addr() }

// Healthy says whether the cluster has agreed that the backend is healthy.
func (b *Backend) Healthy() bool { return b.Health == Healthy }

// Route sends the requests for a host and a path prefix to a pool.
type Route struct {
	// Host is a lower-case host name without a port; empty means any host.
	Host string `json:"host"`
	// Path is a prefix of whole segments: "/api" covers /api and /api/x, not /apix.
	Path string `json:"path"`
	Pool string `json:"pool"`
}

// DefaultTimeouts are the timeouts of a pool that names no others.
func DefaultTimeouts() Timeouts {
	return Timeouts{Connect: Duration(3 * time.Second), Request: Duration(30 * time.Second)}
}

func (p Pool) withDefaults() Pool {
	p.Strategy = either(p.Strategy, RoundRobin)
	p.WhenAllDown = either(p.WhenAllDown, Reject)
	p.HealthCheck = p.HealthCheck.over(DefaultHealthCheck())
	p.Timeouts = p.Timeouts.over(DefaultTimeouts())
	p.Limits = p.Limits.over(Limits{})
	p.Sticky = p.Sticky.over(Sticky{})
	p.Outlier = p.Outlier.over(Outlier{})
	p.Panic = limit(p.Panic, 0)
	p.SlowStart = optional(p.SlowStart, 0)
	p.ProxyProtocol = proxyProtocol(p.ProxyProtocol, "")
	p.HashOn = p.hashOn("")
	return p
}

// over gives the pool that p makes of old: what p names, and the rest of old.
// Backends change by commands of their own.
func (p Pool) over(old Pool) Pool {
	old.HashOn = p.hashOn(old.HashOn)
	old.Strategy = either(p.Strategy, old.Strategy)
	old.WhenAllDown = either(p.WhenAllDown, old.WhenAllDown)
	old.HealthCheck = p.HealthCheck.over(old.HealthCheck)
	old.Timeouts = p.Timeouts.over(old.Timeouts)
	old.Limits = p.Limits.over(old.Limits)
	old.Sticky = p.Sticky.over(old.Sticky)
	old.Outlier = p.Outlier.over(old.Outlier)
	old.Panic = limit(p.Panic, old.Panic)
	old.SlowStart = optional(p.SlowStart, old.SlowStart)
	old.ProxyProtocol = proxyProtocol(p.ProxyProtocol, old.ProxyProtocol)
	return old
}

func (t Timeouts) over(old Timeouts) Timeouts {
	return Timeouts{
		Connect: either(t.Connect, old.Connect),
		Request: either(t.Request, old.Request),
		Try:     optional(t.Try, old.Try),
		Hedge:   optional(t.Hedge, old.Hedge),
	}
}

func (l Limits) over(old Limits) Limits {
	return Limits{
		Connections: limit(l.Connections, old.Connections),
		Pending:     limit(l.Pending, old.Pending),
		Failures:    limit(l.Failures, old.Failures),
		Open:        optional(l.Open, old.Open),
	}
}

func (s Sticky) over(old Sticky) Sticky {
	s = Sticky{Cookie: either(s.Cookie, old.Cookie), Drain: either(s.Drain, old.Drain)}
	if s.Cookie == StickyNone {
		return Sticky{}
	}
	if s.Drain == StickyStay {
		s.Drain = ""
	}
	return s
}

func (o Outlier) over(old Outlier) Outlier {
	return Outlier{
		Consecutive: limit(o.Consecutive, old.Consecutive),
		SuccessRate: limit(o.SuccessRate, old.SuccessRate),
		Time:        optional(o.Time, old.Time),
		MaxShare:    limit(o.MaxShare, old.MaxShare),
	}
}

// limit gives the limit that is left of old by a change.
func limit(given, old int) int {
	if given == NoLimit {
		return 0
	}
	return either(given, old)
}

// optional gives the time that is left of old by a change.
func optional(given, old Duration) Duration {
	if given == NoDuration {
		return 0
	}
	return either(given, old)
}

func proxyProtocol(given, old string) string {
	if given == ProxyNone {
		return ""
	}
	return either(given, old)
}

// hashOn gives what is left of the old one by a change.
func (p *Pool) hashOn(old string) string {
	switch {
	case p.HashOn == HashClient:
		return ""
	case p.HashOn == "" && p.Strategy != "" && p.Strategy != Hash:
		return ""
	}
	return either(p.HashOn, old)
}

func (b Backend) withDefaults() Backend {
	b.Host = canonicalHost(b.Host)
	b.Protocol = either(b.Protocol, "http")
	b.Weight = either(b.Weight, 1)
	b.Admin = either(b.Admin, Ready)
	return b
}

// over gives the backend that b makes of old. Name, ID and health, with all that
// goes with it, are old's: a name does not change, and health is the cluster's to say.
// Backup can only be given; UpdateBackend has another field that takes it away.
func (b Backend) over(old Backend) Backend {
	old.Protocol = either(b.Protocol, old.Protocol)
	old.Host = either(canonicalHost(b.Host), old.Host)
	old.Port = either(b.Port, old.Port)
	old.Weight = either(b.Weight, old.Weight)
	old.Backup = either(b.Backup, old.Backup)
	old.Admin = either(b.Admin, old.Admin)
	return old
}

// either returns given unless it is the zero value, which means "not given".
func either[T comparable](given, otherwise T) T {
	var zero T
	if given == zero {
		return otherwise
	}
	return given
}
