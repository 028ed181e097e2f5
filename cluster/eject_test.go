package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lbnode/state"
)

func TestEjectedByMany(t *testing.T) {
	for _, test := range []struct {
		name     string
		ejected  []string // by node, the names of backends
		silent   int      // of the last nodes, those that are not alive
		share    int
		sick     string // backends that are unhealthy by now
		off      bool
		verdicts string
	}{
		{name: "nobody ejects", ejected: []string{"", "", ""}},
		{name: "one node", ejected: []string{"0", "", ""}},
		{name: "two nodes", ejected: []string{"0", "", "0"}, verdicts: "0 unhealthy ejected by lb1, lb3"},
		{name: "two nodes, two backends", ejected: []string{"0", "1", ""}},
		{name: "all nodes", ejected: []string{"3", "3", "3"}, verdicts: "3 unhealthy ejected by lb1, lb2, lb3"},
		{name: "one of the two is dead", ejected: []string{"0", "", "0"}, silent: 1},
		{name: "another address", ejected: []string{"0 moved", "0", ""}},
		{name: "no more than the share", ejected: []string{"0 1 2", "0 1", "2"}, verdicts: "0 unhealthy ejected by lb1, lb2, 1 unhealthy ejected by lb1, lb2"},
		{name: "the share of one", ejected: []string{"0 1 2", "0 1 2", ""}, share: 25, verdicts: "0 unhealthy ejected by lb1, lb2"},
		{name: "unhealthy ones first", ejected: []string{"0 1 2", "0 1 2", ""}, share: 25, sick: "2"},
		{name: "no longer ejected", ejected: []string{"", "0", ""}, sick: "0", verdicts: "0 healthy"},
		{name: "still ejected", ejected: []string{"0", "0", ""}, sick: "0"},
		{name: "the pool ejects none", ejected: []string{"0", "0", ""}, off: true},
	} {
		pool := &state.Pool{Name: "web", Settings: state.Settings{Outlier: state.Outlier{Consecutive: 5, MaxShare: test.share}}}
		if test.off {
			pool.Outlier.Consecutive = 0
		}
		for i := range 4 {
			b := state.Backend{ID: fmt.Sprint(i), Protocol: "http", Host: "h", Port: 1 + i, Admin: state.Ready, Health: state.Healthy}
			if slices.Contains(strings.Fields(test.sick), b.ID) {
				b.Health = state.Unhealthy
			}
			pool.Backends = append(pool.Backends, new(b))
		}
		view, nodes, fresh, now := state.EmptyView(), ids("node", 3), map[string]nodeReport{}, time.Now()
		view.Pools = []*state.Pool{pool}
		for i, names := range test.ejected {
			report := nodeReport{name: fmt.Sprintf("lb%d", i+1), received: now, byBackend: map[string]Observation{}, ejected: map[string]string{}}
			for j := range pool.Backends { // probes see nothing wrong
				b := pool.Backends[j]
				report.byBackend[b.ID] = Observation{BackendID: b.ID, URL: b.URL(), Healthy: true}
				if slices.Contains(strings.Fields(names), b.ID) {
					report.ejected[b.ID] = b.URL()
				}
			}
			if strings.Contains(names, "moved") {
				report.ejected["0"] = "http://elsewhere:1"
			}
			fresh[nodes[i]] = report
		}
		var got []string
		for _, v := range judge(view, nodes[:3-test.silent], fresh, now) {
			got = append(got, strings.TrimSpace(v.BackendID+" "+string(v.Health)+" "+v.Reason))
			if fell := v.Health == state.Unhealthy; fell != (v.Falls == 1) {
				t.Errorf("%s: got %d falls with %+v, want one for each that falls", test.name, v.Falls, v)
			}
		}
		if strings.Join(got, ", ") != test.verdicts {
			t.Errorf("%s: got %v, want %s", test.name, got, test.verdicts)
		}
	}
}
