package balance

import (
	"math"
	"testing"
	"time"
)

func TestFade(t *testing.T) {
	const half = 1 << halfLifeBits
	for _, test := range []struct {
		age        uint32
		value, got uint64
	}{
		{0, 1000, 1000}, {half / 2, 1000, 750}, {half, 1000, 500}, {2 * half, 1000, 250}, {3 * half / 2, 1000, 375},
		{100 * half, math.MaxUint32, 0}, {math.MaxInt32, 1000, 0}, {math.MaxUint32, 1000, 1000}, // a moment before
	} {
		if got := fade(test.value, test.age, halfLifeBits); got != test.got {
			t.Errorf("%d at the age of %d: got %d, want %d", test.value, test.age, got, test.got)
		}
	}
}

func TestEstimateLearns(t *testing.T) {
	const half = 1 << halfLifeBits
	type sample struct{ value, at uint32 }
	for _, test := range []struct {
		name    string
		keep    float64
		samples []sample
		now     uint32
		want    uint64
	}{
		{"nothing", 1, nil, 5, 777},
		{"the first counts whole", 0.8, []sample{{1000, 5}}, 5, 1000},
		{"others a fifth", 0.8, []sample{{1000, 5}, {2000, 5}}, 5, 1200},
		{"more when the rest is old", 0.8, []sample{{1000, 5}, {2000, 5 + half}}, 5 + half, 1600},
		{"alone when it is very old", 0.8, []sample{{1000, 5}, {2000, 5 + 99*half}}, 5 + 99*half, 2000},
		{"faded", 0.8, []sample{{1000, 5}}, 5 + half, 500},
		{"never below the floor", 0.8, []sample{{1000, 5}}, 5 + 50*half, floor},
		{"of no time", 0.8, []sample{{0, 5}}, 5, floor},
		{"over the wrap of the clock", 1, []sample{{3000, math.MaxUint32 - 5}, {1000, half - 6}}, half - 6, 2000},
	} {
		var e estimate
		for _, s := range test.samples {
			e.learn(uint64(s.value), s.at, test.keep)
		}
		if got := e.at(test.now, 777); got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
}

func TestTypical(t *testing.T) {
	var m typical
	if got := m.mean(); got != unknown {
		t.Errorf("got %d of nothing, want %d", got, unknown)
	}
	m.add(5000)
	if got := m.mean(); got != 5000 {
		t.Errorf("got %d of one sample, want that", got)
	}
	for range 1000 {
		m.add(2000)
	}
	if got := m.mean(); got < 2000 || got > 2005 {
		t.Errorf("got %d of a thousand samples, want 2000", got)
	}
	for _, test := range []struct {
		a    Attempt
		want uint64
	}{
		{Attempt{Latency: 3 << unitBits}, 3},
		{Attempt{Latency: -5}, 0},
		{Attempt{Latency: math.MaxInt64}, math.MaxUint32},
		{Attempt{Latency: time.Millisecond, Failed: true}, penalty * m.mean()},
		{Attempt{Latency: time.Hour, Failed: true}, uint64(time.Hour) >> unitBits},
	} {
		if got := m.charge(test.a); got != test.want {
			t.Errorf("%+v: got a charge of %d, want %d", test.a, got, test.want)
		}
	}
}
