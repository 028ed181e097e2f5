package admin

import (
	"time"

	"lbnode/cluster"
	"lbnode/state"
)

// timeFormat is how times are written: RFC 3339 in UTC, to the millisecond.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// Pool is a pool as /v1 shows it.
type Pool struct {
	Name        string      `json:"name"`
	Strategy    string      `json:"strategy"`
	HashOn      string      `json:"hash_on,omitempty"` // left out where it is the client
	HealthCheck HealthCheck `json:"health_check"`
	Timeouts    Timeouts    `json:"timeouts"`
	Limits      Limits      `json:"limits"`
	Sticky      Sticky      `json:"sticky"`
	WhenAllDown string      `json:"when_all_down"`
	// Outlier, PanicThreshold, SlowStart and ProxyProtocol are left out where there is none.
	Outlier        Outlier        `json:"outlier,omitzero"`
	PanicThreshold int            `json:"panic_threshold,omitempty"`
	SlowStart      state.Duration `json:"slow_start,omitzero"`
	ProxyProtocol  string         `json:"proxy_protocol,omitempty"`
	Backends       []Backend      `json:"backends"`
}

// PoolSpec is a pool as it is written. What is left out takes the default when
// the pool is created, and stays as it is when it is changed. The tag off is the value that
// takes a setting away.
type PoolSpec struct {
	Name           string         `json:"name,omitempty"`
	Strategy       string         `json:"strategy,omitempty"`
	HashOn         string         `json:"hash_on,omitempty" off:"client"`
	HealthCheck    HealthCheck    `json:"health_check,omitzero"`
	Timeouts       Timeouts       `json:"timeouts,omitzero"`
	Limits         Limits         `json:"limits,omitzero"`
	Sticky         Sticky         `json:"sticky,omitzero"`
	WhenAllDown    string         `json:"when_all_down,omitempty"`
	Outlier        Outlier        `json:"outlier,omitzero"`
	PanicThreshold int            `json:"panic_threshold,omitempty" off:"-1"`
	SlowStart      state.Duration `json:"slow_start,omitzero" off:"none"`
	ProxyProtocol  string         `json:"proxy_protocol,omitempty" off:"none"`
	Backends       []BackendSpec  `json:"backends,omitempty"` // on creation only
}

// HealthCheck is a [state.HealthCheck] of which parts may be left out in writing.
type HealthCheck struct {
	Type     string         `json:"type,omitempty"`
	Path     string         `json:"path,omitempty"`
	Interval state.Duration `json:"interval,omitzero"`
	Timeout  state.Duration `json:"timeout,omitzero"`
	Rise     int            `json:"rise,omitempty"`
	Fall     int            `json:"fall,omitempty"`

	UnhealthyInterval state.Duration    `json:"unhealthy_interval,omitzero" off:"none"`
	Method            string            `json:"method,omitempty" off:"GET"`
	Host              string            `json:"host,omitempty" off:"none"`
	Status            string            `json:"status,omitempty" off:"200-399"`
	Body              string            `json:"body,omitempty" off:"none"`
	TLS               string            `json:"tls,omitempty" off:"auto"`
	Port              int               `json:"port,omitempty" off:"-1"`
	Service           string            `json:"service,omitempty" off:"none"`
	Headers           map[string]string `json:"headers,omitempty"` // an empty value takes a header away
}

// Timeouts are [state.Timeouts] of which parts may be left out in writing.
type Timeouts struct {
	Connect state.Duration `json:"connect,omitzero"`
	Request state.Duration `json:"request,omitzero"`
	Try     state.Duration `json:"try,omitzero" off:"none"`
	Hedge   state.Duration `json:"hedge,omitzero" off:"none"`
}

// Limits are [state.Limits]. What is not limited is left out; -1 takes a limit away, none the
// time.
type Limits struct {
	Connections int            `json:"connections,omitempty" off:"-1"`
	Pending     int            `json:"pending,omitempty" off:"-1"`
	Failures    int            `json:"failures,omitempty" off:"-1"`
	Open        state.Duration `json:"open,omitzero" off:"none"`
}

// Sticky is [state.Sticky]. Nothing is there where clients are not kept anywhere; the
// cookie none takes it away.
type Sticky struct {
	Cookie string `json:"cookie,omitempty" off:"none"`
	Drain  string `json:"drain,omitempty" off:"stay"`
}

// Outlier is a [state.Outlier]. What is off is left out; -1 takes a number away, none the
// time.
type Outlier struct {
	Consecutive int            `json:"consecutive,omitempty" off:"-1"`
	SuccessRate int            `json:"success_rate,omitempty" off:"-1"`
	Time        state.Duration `json:"time,omitzero" off:"none"`
	MaxShare    int            `json:"max_share,omitempty" off:"-1"`
}

// Backend is a backend as /v1 shows it.
type Backend struct {
	ID       string       `json:"id"`
	Name     string       `json:"name"`
	Protocol string       `json:"protocol"`
	Host     string       `json:"host"`
	Port     int          `json:"port"`
	URL      string       `json:"url"`
	Weight   int          `json:"weight"`
	Backup   bool         `json:"backup,omitempty"`
	Admin    state.Admin  `json:"admin"`
	Health   state.Health `json:"health"`
	Healthy  bool         `json:"healthy"`
	// Reason is why the backend is unhealthy: a node's name and what its probe found, or
	// which nodes had ejected it.
	Reason string `json:"reason,omitempty"`
	// AgentAdmin is drain or maint if the backend's agent asks for it, AgentWeight such
	// as 50% if it asks for another weight.
	AgentAdmin  state.Admin `json:"agent_admin,omitempty"`
	AgentWeight string      `json:"agent_weight,omitempty"`
	// Since is when Health last changed, RFC 3339.
	Since string `json:"since"`
	// LastHealthCheck is when the node that answers last probed the backend, RFC
	// 3339, empty if it has not.
	LastHealthCheck string `json:"last_health_check"`
}

// BackendSpec is a backend as it is written: its address is either URL, or
// Protocol, Host and Port. What is left out takes the default when the backend is
// created, and stays as it is when it is changed.
type BackendSpec struct {
	Name     string      `json:"name,omitempty"`
	URL      string      `json:"url,omitempty"`
	Protocol string      `json:"protocol,omitempty"`
	Host     string      `json:"host,omitempty"`
	Port     int         `json:"port,omitempty"`
	Weight   int         `json:"weight,omitempty" zero:"to stop traffic set admin to drain or maint"`
	Backup   *bool       `json:"backup,omitempty"`
	Admin    state.Admin `json:"admin,omitempty"`
}

// Route is a route, shown and written alike. An empty Host is any host; a Path
// that is left out is "/".
type Route struct {
	Host string `json:"host" zero:"allowed"`
	Path string `json:"path,omitempty"`
	Pool string `json:"pool"`
}

// observed gives what this node's probes say of a backend, nil if it does not probe
// it.
type observed func(backendID string) *cluster.Observation

func newPool(p *state.Pool, seen observed) Pool {
	return Pool{
		Name:           p.Name,
		Strategy:       p.Strategy,
		HashOn:         p.HashOn,
		HealthCheck:    HealthCheck(p.HealthCheck),
		Timeouts:       Timeouts(p.Timeouts),
		Limits:         Limits(p.Limits),
		Sticky:         Sticky(p.Sticky),
		WhenAllDown:    p.WhenAllDown,
		Outlier:        Outlier(p.Outlier),
		PanicThreshold: p.Panic,
		SlowStart:      p.SlowStart,
		ProxyProtocol:  p.ProxyProtocol,
		Backends:       newBackends(p, seen),
	}
}

func newBackends(p *state.Pool, seen observed) []Backend {
	backends := make([]Backend, len(p.Backends))
	for i := range p.Backends {
		backends[i] = newBackend(&p.Backends[i], seen)
	}
	return backends
}

func newBackend(b *state.Backend, seen observed) Backend {
	checked := ""
	if o := seen(b.ID); o != nil && o.URL == b.URL() {
		checked = formatTime(o.At)
	}
	return Backend{
		ID:              b.ID,
		Name:            b.Name,
		Protocol:        b.Protocol,
		Host:            b.Host,
		Port:            b.Port,
		URL:             b.URL(),
		Weight:          b.Weight,
		Backup:          b.Backup,
		Admin:           b.Admin,
		Health:          b.Health,
		Healthy:         b.Healthy(),
		Reason:          b.Reason,
		AgentAdmin:      agentAdmin(b),
		AgentWeight:     b.Agent.Weight,
		Since:           formatMillis(b.Since),
		LastHealthCheck: checked,
	}
}

// agentAdmin is what keeps traffic away by an agent's wish, empty if nothing does.
func agentAdmin(b *state.Backend) state.Admin {
	if wants := b.Agent.Wants(); wants != state.Ready {
		return wants
	}
	return ""
}

// formatTime gives "" for the zero time.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timeFormat)
}

// formatMillis formats milliseconds since 1970, "" for 0.
func formatMillis(ms int64) string {
	if ms == 0 {
		return ""
	}
	return formatTime(time.UnixMilli(ms))
}
