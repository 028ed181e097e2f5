package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"lbnode/cluster/admin"
	"lbnode/state"
)

// Settings are told in the order in which the API has them.
func TestDescriptionHasTheOrderOfTheAPI(t *testing.T) {
	const second = state.Duration(time.Second)
	p := &state.Pool{
		Name: "web", Strategy: state.Hash, HashOn: "path",
		HealthCheck: state.HealthCheck{
			Type: "http", Path: "/", Interval: second, Timeout: second, Rise: 1, Fall: 1, UnhealthyInterval: second, Method: "POST", Host: "h",
			Status: "200", Body: "b", TLS: "on", Port: 1, Service: "s", Headers: map[string]string{"X-B": "1", "X-A": "1"},
		},
		Timeouts: state.Timeouts{Connect: second, Request: second, Try: second, Hedge: second},
		Limits:   state.Limits{Connections: 1, Pending: 1, Failures: 1, Open: second},
		Sticky:   state.Sticky{Cookie: "c", Drain: "move"}, WhenAllDown: state.FailOpen,
		Outlier: state.Outlier{Consecutive: 1, SuccessRate: 1, Time: second, MaxShare: 1},
		Panic:   1, SlowStart: second, ProxyProtocol: "v1",
	}
	got := describePool(p)
	words := []string{
		"hash", "hash on path", "check http / every", "within", "rise", "fall", "while unhealthy", "check method", "check host", "check status",
		"check body", "check TLS", "check port", "check service", "check header X-A", "check header X-B", "timeouts connect", "request", "try", "hedge",
		"limits connections", "pending", "failures", "open", "sticky", "drain", "fail_open", "outlier consecutive", "success rate", "time", "max share",
		"panic threshold", "slow start", "PROXY protocol",
	}
	at := 0
	for _, word := range words {
		next := strings.Index(got[at:], word)
		if next < 0 {
			t.Fatalf("got %s, want %q after the first %d bytes", got, word, at)
		}
		at += next + len(word)
	}
	// What is new in the API must be told here, too.
	var keys []string
	for i := range reflect.TypeFor[admin.Pool]().NumField() {
		key, _, _ := strings.Cut(reflect.TypeFor[admin.Pool]().Field(i).Tag.Get("json"), ",")
		keys = append(keys, key)
	}
	want := []string{"name", "strategy", "hash_on", "health_check", "timeouts", "limits", "sticky", "when_all_down", "outlier", "panic_threshold", "slow_start", "proxy_protocol", "backends"}
	if !slices.Equal(keys, want) {
		t.Errorf("got the keys %v in the API, want %v: change describePool as well", keys, want)
	}
}
