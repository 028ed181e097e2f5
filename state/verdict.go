package state

import (
	"strings"
	"time"
	"unicode/utf8"
)

// MaxReason is how many bytes the reason of a verdict may have.
const MaxReason = 120

// SetHealth commits verdicts. A verdict on a backend that has gone, or has moved
// since it was probed, is passed over: it came too late.
type SetHealth struct {
	Verdicts []Verdict `json:"verdicts"`
}

// Verdict is a health that a majority of a backend's observers agreed on.
type Verdict struct {
	BackendID string `json:"backend_id"`
	// URL is the address that was probed.
	URL    string `json:"url"`
	Health Health `json:"health"`
	// Reason and Falls become those of the backend.
	Reason string `json:"reason,omitempty"`
	Falls  int    `json:"falls,omitempty"`
	// Agent, unless nil, becomes that of the backend. Health may then be empty, and stays.
	Agent *Wish `json:"agent,omitempty"`
}

func (*SetHealth) kind() string { return "set_health" }

func (op *SetHealth) apply(c *draft, at int64) *Error {
	pools := map[string]map[*Backend]Verdict{}
	for _, v := range op.Verdicts {
		if err := v.validate(); err != nil {
			return err
		}
		of, found := c.index.ids[v.BackendID]
		if !found {
			continue
		}
		if pools[of.pool] == nil {
			pools[of.pool] = map[*Backend]Verdict{}
		}
		pools[of.pool][of.backend] = v
	}
	for name, verdicts := range pools {
		i, _ := c.findPool(name)
		if changed := c.Pools[i].judged(verdicts, at); changed != nil {
			c.putPool(changed)
		}
	}
	return nil
}

func (v *Verdict) validate() *Error {
	if v.Health != Healthy && v.Health != Unhealthy && (v.Health != "" || v.Agent == nil) {
		return invalid("health", "must be healthy or unhealthy, not %q", v.Health)
	}
	if len(v.Reason) > MaxReason || !utf8.ValidString(v.Reason) || strings.ContainsFunc(v.Reason, isControl) {
		return invalid("reason", "must be at most %d bytes of text without control characters, not %q", MaxReason, v.Reason)
	}
	if v.Falls < 0 || v.Falls > maxFalls {
		return invalid("falls", "must be 0 to %d, not %d", maxFalls, v.Falls)
	}
	if v.Agent != nil {
		return v.Agent.validate()
	}
	return nil
}

// judged returns a copy of the pool with the verdicts on its backends, nil if
// they change nothing. A verdict that only has another reason changes nothing.
func (p *Pool) judged(verdicts map[*Backend]Verdict, at int64) *Pool {
	var changed *Pool
	for i, old := range p.Backends {
		v, ok := verdicts[old]
		if !ok || v.URL != old.URL() {
			continue
		}
		b := old.judged(v, at, p.HealthCheck.Type == CheckAgent)
		if *b == *old {
			continue
		}
		if changed == nil {
			changed = p.clone()
		}
		changed.Backends[i] = b
	}
	return changed
}

// judged returns a copy of the backend with a verdict on it. What an agent asks for counts
// where the check has one.
func (b *Backend) judged(v Verdict, at int64, hasAgent bool) *Backend {
	made := *b
	if v.Health != "" && v.Health != b.Health {
		made.Health, made.Since, made.Reason, made.Falls = v.Health, at, v.Reason, v.Falls
	}
	if v.Agent != nil && hasAgent {
		made.Agent = *v.Agent
	}
	return &made
}

// begin makes the backend one of which nothing is known.
func (b *Backend) begin(at int64) {
	b.Health, b.Since, b.Reason, b.Falls, b.Agent = Starting, at, "", 0, Wish{}
}

// inherit takes over what the cluster knows of old.
func (b *Backend) inherit(old *Backend) {
	b.Health, b.Since, b.Reason, b.Falls, b.Agent = old.Health, old.Since, old.Reason, old.Falls, old.Agent
}

// Unjudged gives the pool without what the cluster has found out about its backends
// besides their health.
func (p Pool) Unjudged() Pool {
	copied := p.clone()
	for i, b := range p.Backends {
		plain := *b
		plain.Reason, plain.Falls, plain.Agent = "", 0, Wish{}
		copied.Backends[i] = &plain
	}
	return *copied
}

// A backend flaps if it falls, from healthy to unhealthy, again and again. From the
// third fall in five minutes on it must prove itself before it gets traffic again, for
// a time that begins at holdLeast and doubles with each further fall. One fall is what
// a deployment makes, a second one that of a mistake put right; the third is a pattern,
// and the sixth change in five minutes is the first that is late. Each five minutes
// without a change take one fall away, so that half an hour is the most that is
// remembered.
const (
	flapsFrom  = 3
	maxFalls   = 8
	forgetFall = 5 * time.Minute
	holdLeast  = 10 * time.Second
	holdMost   = 5 * time.Minute
)

// NextFalls is the count of falls that goes with a verdict at the given time, in
// milliseconds since 1970. A clock that went back forgets nothing.
func (b *Backend) NextFalls(verdict Health, at int64) int {
	quiet := max(at-b.Since, 0) / forgetFall.Milliseconds()
	falls := max(b.Falls-int(min(quiet, maxFalls)), 0)
	if b.Health == Healthy && verdict == Unhealthy {
		falls++
	}
	return min(falls, maxFalls)
}

// Hold is how long an unhealthy backend must be healthy in its observers' opinion
// before the cluster takes it for healthy: 0 unless it flaps.
func (b *Backend) Hold() time.Duration {
	if b.Health != Unhealthy || b.Falls < flapsFrom {
		return 0
	}
	return min(holdLeast<<(b.Falls-flapsFrom), holdMost)
}
