//go:build linux

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// someResults are of two peers, of which one has failed.
func someResults() []result {
	c := scenario{name: "small", title: "Small ones", columns: []string{costTitle, rateTitle}}
	samples := func(costs ...float64) []sample {
		var all []sample
		for _, cost := range costs {
			all = append(all, sample{values: []float64{cost, 1000 / cost}})
		}
		return all
	}
	return []result{{scenario: c, series: []series{
		{peer: subject, samples: samples(9, 8, 10)},
		{peer: "nginx", samples: samples(10, 10, 11)},
		{peer: "haproxy", samples: samples(5), err: errors.New("3 of 9 requests failed")},
		{peer: noProxy, samples: samples(1, 1, 1)},
	}}}
}

// Ratios are taken within a round: 0.9, 0.8 and 0.91, of which 0.9 is the middle.
func TestTables(t *testing.T) {
	r := someResults()[0]
	if got := summary([]result{r}).rows; len(got) != 2 || strings.Join(got[0], ",") != "case,what,nginx,haproxy" || got[1][3] != "failed" || !strings.HasPrefix(got[1][2], "0.90 [") {
		t.Errorf("summary: got %q", got)
	}
	detail := r.detail()
	for i, want := range []string{
		"proxy|CPU µs/request|lbnode ÷|requests/s|lbnode ÷",
		"lbnode|9.00||111|",
		"nginx|10.0|0.90 [",
		"haproxy|FAILED||FAILED|",
		"no proxy|1.00||1000|",
	} {
		if got := strings.Join(detail.rows[i], "|"); !strings.HasPrefix(got, want) {
			t.Errorf("row %d: got %q, want %q", i, got, want)
		}
	}
	if got := strings.Join(detail.notes, "\n"); !strings.Contains(got, "haproxy FAILED: 3 of 9") {
		t.Errorf("notes: got %q, want why haproxy failed", got)
	}
	if !r.failed() {
		t.Error("got a result that is well, want it to be failed")
	}
}

// How late a proxy is that cannot keep up says only how long it was measured.
func TestNoRatioToOneThatFallsBehind(t *testing.T) {
	r := someResults()[0]
	for i := range r.series[1].samples {
		r.series[1].samples[i].behind = i > 0
	}
	if got := summary([]result{r}).rows[1][2]; got != "behind" {
		t.Errorf("summary: got %q, want behind", got)
	}
	if got := strings.Join(r.detail().notes, " "); !strings.Contains(got, "nginx could not keep up in 2 of 3 rounds") {
		t.Errorf("notes: got %q, want that nginx cannot keep up", got)
	}
}

func TestMarkdown(t *testing.T) {
	got := string(renderMarkdown([]string{"CPU: fast"}, []table{{title: "T", rows: [][]string{{"a", "b"}, {"1", ""}}, notes: []string{"N"}}}))
	want := "- CPU: fast\n\n### T\n\n| a | b |\n|---|---|\n| 1 |  |\n\nN\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSVGIsWellFormed(t *testing.T) {
	text := string(renderSVG(someResults()))
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
	}
	for _, want := range []string{">nginx<", "prefers-color-scheme:dark", ">0.90 ["} {
		if !strings.Contains(text, want) {
			t.Errorf("got no %q in %s", want, text)
		}
	}
	if strings.Contains(text, "haproxy") || strings.Contains(text, "NaN") {
		t.Errorf("got a bar without a ratio in %s", text)
	}
}

// Half as much and twice as much are equally far from 1; what lies outside is cut.
func TestScale(t *testing.T) {
	s := scale{least: 0.25, most: 4}
	for ratio, want := range map[float64]float64{0.25: chartLeft, 4: chartRight, 1: (chartLeft + chartRight) / 2, 0.01: chartLeft, 99: chartRight} {
		if got := s.x(ratio); !near(got, want, 1e-9) {
			t.Errorf("%v: got %v, want %v", ratio, got, want)
		}
	}
	if left, right := s.x(1)-s.x(0.5), s.x(2)-s.x(1); !near(left, right, 1e-9) {
		t.Errorf("got %v pixels for a half and %v for twice, want the same", left, right)
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{0.123: "0.12", 9.994: "9.99", 12.34: "12.3", 1234.5: "1234", 0: "0.00"} {
		if got := figure(v); got != want {
			t.Errorf("%v: got %q, want %q", v, got, want)
		}
	}
}
