package state

import (
	"strconv"
	"strings"
)

// Wish is what a backend's agent asks for. It never overwrites what the operator
// wants: of both, the stricter counts.
type Wish struct {
	// Admin is Drain or Maint, empty for Ready.
	Admin Admin `json:"admin,omitempty"`
	// Weight is a part of the configured weight such as "50%", empty for all of it.
	// "0%" is no new requests.
	Weight string `json:"weight,omitempty"`
}

// maxPercent is with which a weight of 1 becomes the greatest.
const maxPercent = 100 * maxWeight

// ParsePercent reads the form of [Wish.Weight].
func ParsePercent(text string) (percent int, ok bool) {
	digits, hasSign := strings.CutSuffix(text, "%")
	percent, err := strconv.Atoi(digits)
	return percent, hasSign && err == nil && percent >= 0 && percent <= maxPercent && strconv.Itoa(percent) == digits
}

// FormatPercent gives the form that ParsePercent reads, empty for all.
func FormatPercent(percent int) string {
	if percent == 100 {
		return ""
	}
	return strconv.Itoa(percent) + "%"
}

// Percent is Weight as a number.
func (w Wish) Percent() int {
	if w.Weight == "" {
		return 100
	}
	if percent, ok := ParsePercent(w.Weight); ok {
		return percent
	}
	return 100
}

// Wants is the admin state that the agent asks for in one way or the other.
func (w Wish) Wants() Admin {
	if w.Percent() == 0 {
		return stricter(w.Admin, Drain)
	}
	return stricter(w.Admin, Ready)
}

func (w *Wish) validate() *Error {
	if w.Admin != "" && w.Admin != Drain && w.Admin != Maint {
		return invalid("agent.admin", "must be drain, maint or empty, not %q", w.Admin)
	}
	if w.Weight != "" && FormatPercent(w.Percent()) != w.Weight {
		return invalid("agent.weight", "must be 0%% to %d%%, or empty for 100%%, not %q", maxPercent, w.Weight)
	}
	return nil
}

// stricter gives the one of two admin states that keeps more traffic away.
func stricter(a, b Admin) Admin {
	for _, admin := range []Admin{Maint, Drain} {
		if a == admin || b == admin {
			return admin
		}
	}
	return Ready
}

// Wanted is whether the backend should get traffic, by the operator and its agent.
func (b *Backend) Wanted() Admin {
	if b.Agent == (Wish{}) {
		return b.Admin
	}
	return stricter(b.Admin, b.Agent.Wants())
}

// Share is the weight that the backend has with what its agent asks for, at least 1.
func (b *Backend) Share() int {
	if b.Agent.Weight == "" {
		return b.Weight
	}
	return min(max(b.Weight*b.Agent.Percent()/100, 1), maxWeight)
}

// forgetAgents takes away what agents asked for, if the pool's check has none.
func (p *Pool) forgetAgents() {
	if p.HealthCheck.Type == CheckAgent {
		return
	}
	cloned := false
	for i, b := range p.Backends {
		if b.Agent == (Wish{}) {
			continue
		}
		if !cloned {
			p.Backends, cloned = p.clone().Backends, true
		}
		without := *b
		without.Agent = Wish{}
		p.Backends[i] = &without
	}
}
