package cluster

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"lbnode/state"
)

// maxVerdicts is how many verdicts one log entry holds: with reasons, some 250 KiB.
// Raft asks for no more than twice that.
const maxVerdicts = 1000

// judgeLoop commits verdicts, those of one moment together.
func (c *Cluster) judgeLoop(ctx context.Context) {
	for {
		changed, alive, now := c.changes.wait(), c.aliveIDs(), time.Now()
		verdicts := judge(c.fsm.view(), alive, c.observers.fresh(alive, now), now)
		for some := range slices.Chunk(verdicts, maxVerdicts) {
			err := c.commitVerdicts(ctx, some)
			if err != nil && ctx.Err() == nil {
				c.log.Warn("cannot commit verdicts", "error", err)
				pause(ctx, time.Second)
			}
			if err != nil {
				break
			}
		}
		if !pauseUntil(ctx, changed, time.Second) {
			return
		}
	}
}

// commitVerdicts leaves out why, and how often, while there are members that do not
// understand it: whether a backend is healthy must not wait for an upgrade.
func (c *Cluster) commitVerdicts(ctx context.Context, verdicts []state.Verdict) error {
	err := c.applyOp(ctx, &state.SetHealth{Verdicts: verdicts})
	if errors.Is(err, ErrHeldBack) {
		if verdicts = plain(verdicts); len(verdicts) == 0 {
			return nil
		}
		return c.applyOp(ctx, &state.SetHealth{Verdicts: verdicts})
	}
	if err == nil {
		c.tellFlapping(verdicts)
	}
	return err
}

// plain gives verdicts as the first version has them.
func plain(verdicts []state.Verdict) []state.Verdict {
	var all []state.Verdict
	for _, v := range verdicts {
		if v.Health != "" {
			all = append(all, state.Verdict{BackendID: v.BackendID, URL: v.URL, Health: v.Health})
		}
	}
	return all
}

// tellFlapping logs which backends will be held, and for how long.
func (c *Cluster) tellFlapping(verdicts []state.Verdict) {
	if !slices.ContainsFunc(verdicts, func(v state.Verdict) bool { return v.Falls > 0 && v.Health == state.Unhealthy }) {
		return
	}
	judged := map[string]bool{}
	for _, v := range verdicts {
		judged[v.BackendID] = true
	}
	for _, pool := range c.fsm.view().Pools {
		for i := range pool.Backends {
			if b := pool.Backends[i]; judged[b.ID] && b.Hold() > 0 && anyServes(pool) {
				c.log.Warn("backend flaps: it gets no traffic before it has been healthy for some time",
					"pool", pool.Name, "backend", b.Name, "for", b.Hold(), "falls", b.Falls, "reason", b.Reason)
			}
		}
	}
}

// judge returns the verdicts that the reports call for: where a majority of a
// backend's observers agree on another health than the committed one and, if the
// backend flaps, have found it healthy for long enough; and where traffic has found out
// what probes do not (eject.go).
func judge(view *state.View, alive []string, fresh map[string]nodeReport, now time.Time) []state.Verdict {
	var verdicts []state.Verdict
	electorate := newElectorate(alive)
	for _, pool := range view.Pools {
		ejected, holds := ejectedByMany(pool, alive, fresh), anyServes(pool)
		for i := range pool.Backends {
			b := pool.Backends[i]
			observers := electorate.observers(b.ID)
			v := judgeOne(b, observers, fresh, holds, now)
			if by := ejected[b.ID]; by != "" {
				v = turned(b, state.Unhealthy, by, now)
			}
			if pool.HealthCheck.Type == state.CheckAgent {
				v.Agent = agreedWish(b, observers, fresh)
			}
			if v.Health != "" || v.Agent != nil {
				v.BackendID, v.URL = b.ID, b.URL()
				verdicts = append(verdicts, v)
			}
		}
	}
	return verdicts
}

// anyServes says whether a backend of the pool gets traffic by what is agreed. While none
// does, none is held: one that flaps is better than none.
func anyServes(pool *state.Pool) bool {
	return slices.ContainsFunc(pool.Backends, func(b *state.Backend) bool { return b.Healthy() && b.Wanted() == state.Ready })
}

// judgeOne gives the verdict of its probes on a backend's health, an empty one if it stays.
func judgeOne(b *state.Backend, observers []string, fresh map[string]nodeReport, holds bool, now time.Time) state.Verdict {
	health := majority(b, observers, fresh)
	switch {
	case health == "" || health == b.Health:
		return state.Verdict{}
	case health == state.Unhealthy:
		return turned(b, health, reasonOf(b, observers, fresh), now)
	case holds && steadyFor(b, observers, fresh, now) < b.Hold():
		return state.Verdict{}
	}
	return turned(b, health, "", now)
}

// turned is a verdict, an empty one if it is what the cluster has.
func turned(b *state.Backend, health state.Health, reason string, now time.Time) state.Verdict {
	if health == b.Health {
		return state.Verdict{}
	}
	return state.Verdict{Health: health, Reason: reason, Falls: b.NextFalls(health, now.UnixMilli())}
}

// majority returns the health that more than half of the observers report, empty
// if there is none. Those who have not reported count as undecided.
func majority(b *state.Backend, observers []string, fresh map[string]nodeReport) state.Health {
	up, down, url := 0, 0, b.URL()
	for _, node := range observers {
		o, ok := fresh[node].byBackend[b.ID]
		switch {
		case !ok || o.URL != url:
		case o.Healthy:
			up++
		default:
			down++
		}
	}
	need := len(observers)/2 + 1
	switch {
	case up >= need:
		return state.Healthy
	case down >= need:
		return state.Unhealthy
	}
	return ""
}

// steadyFor is how long a majority of the observers have found the backend healthy,
// each by its own clock: until its report, and since that came. Where nothing is held
// it is not asked.
func steadyFor(b *state.Backend, observers []string, fresh map[string]nodeReport, now time.Time) time.Duration {
	if b.Hold() == 0 {
		return 0
	}
	var steady []time.Duration
	for _, node := range observers {
		report := fresh[node]
		if o, ok := report.byBackend[b.ID]; ok && o.Healthy && o.URL == b.URL() {
			steady = append(steady, o.Steady+now.Sub(report.received))
		}
	}
	need := len(observers)/2 + 1
	if len(steady) < need {
		return 0
	}
	slices.Sort(steady)
	return steady[len(steady)-need]
}

// strictness is the order of what agents ask for.
var strictness = []state.Admin{"", state.Drain, state.Maint}

// agreedWish is what a backend's agent asks for by the word of a majority of the
// observers, nil if that is what the cluster has, or if they do not agree.
func agreedWish(b *state.Backend, observers []string, fresh map[string]nodeReport) *state.Wish {
	var admins, percents []int
	for _, node := range observers {
		if o, ok := fresh[node].byBackend[b.ID]; ok && o.URL == b.URL() {
			admins = append(admins, slices.Index(strictness, o.Agent.Admin))
			percents = append(percents, o.Agent.Percent())
		}
	}
	wish := b.Agent
	if admin, ok := middle(admins, len(observers)); ok && admin >= 0 {
		wish.Admin = strictness[admin]
	}
	if percent, ok := middle(percents, len(observers)); ok {
		wish.Weight = state.FormatPercent(percent)
	}
	if wish == b.Agent {
		return nil
	}
	return &wish
}

// middle is the value of which a majority of n say that it is at least that and a
// majority that it is at most that. Observers ask at different moments, and a load
// is seldom twice the same: what they all say might never be.
func middle(said []int, n int) (value int, ok bool) {
	need := n/2 + 1
	if len(said) < need {
		return 0, false
	}
	slices.Sort(said)
	return said[need-1], said[need-1] == said[len(said)-need]
}

// reasonOf is what the first observer that finds the backend unhealthy says of it.
func reasonOf(b *state.Backend, observers []string, fresh map[string]nodeReport) string {
	for _, node := range observers {
		report := fresh[node]
		if o, ok := report.byBackend[b.ID]; ok && !o.Healthy && o.URL == b.URL() && o.Reason != "" {
			return clipReason(report.name + ": " + o.Reason)
		}
	}
	return ""
}

// clipReason makes a text one that a verdict may carry.
func clipReason(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	const mark = "…"
	if len(text) <= state.MaxReason {
		return text
	}
	end := state.MaxReason - len(mark)
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + mark
}
