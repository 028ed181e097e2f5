package admin

import (
	"encoding/json"
	"strings"
	"time"

	"lbnode/cluster"
	"lbnode/state"
)

// timeFormat is how times are written: RFC 3339 in UTC, to the millisecond.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// Pool is a pool as /v1 shows it. What it gives can be written back as a PoolSpec.
type Pool struct {
	Name string `json:"name"`
	state.Settings
	Limits   state.Limits `json:"limits"` // these two are there also where they say nothing
	Sticky   state.Sticky `json:"sticky"`
	Backends []Backend    `json:"backends"`
}

// PoolSpec is a pool as it is written. What is left out takes the default when
// the pool is created, and stays as it is when it is changed.
type PoolSpec struct {
	Name string `json:"name,omitempty"`
	state.Settings
	Backends []BackendSpec `json:"backends,omitempty"` // when it is changed, as they are
}

// MarshalJSON writes what is given.
func (p PoolSpec) MarshalJSON() ([]byte, error) {
	object := map[string]any{}
	p.Each(func(path string, value any) {
		group, key, nested := strings.Cut(path, ".")
		if !nested {
			object[path] = value
			return
		}
		if object[group] == nil {
			object[group] = map[string]any{}
		}
		object[group].(map[string]any)[key] = value
	})
	if p.Name != "" {
		object["name"] = p.Name
	}
	if p.Backends != nil {
		object["backends"] = p.Backends
	}
	return json.Marshal(object)
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

// BackendSpec is a backend as it is written: its address is URL, or Protocol, Host and
// Port, or both where they say the same. What is left out takes the default when the backend
// is created, and stays as it is when it is changed.
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
	return Pool{p.Name, p.Settings, p.Limits, p.Sticky, newBackends(p, seen)}
}

func newBackends(p *state.Pool, seen observed) []Backend {
	backends := make([]Backend, len(p.Backends))
	for i := range p.Backends {
		backends[i] = newBackend(p.Backends[i], seen)
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
