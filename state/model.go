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

// Pool is a named, ordered set of backends with their settings.
type Pool struct {
	Name string `json:"name"`
	Settings
	// Backends are in their order. Views share those that did not change: who changes one
	// puts another in its place.
	Backends []*Backend `json:"backends"`
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
func DefaultTimeouts() Timeouts { return DefaultSettings().Timeouts }

func (p Pool) withDefaults() Pool {
	p.Settings = p.Settings.over(DefaultSettings())
	return p
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

// Keeps says whether a change leaves the backend as it is.
func (b *Backend) Keeps(patch Backend) bool {
	return patch.over(*b) == *b && (patch.Backup || !b.Backup)
}
