//go:build linux

package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
)

// The chart's measures, in pixels.
const (
	chartWidth = 760
	chartLeft  = 150 // where the least ratio lies
	chartRight = 600 // where the greatest lies; figures follow
	barStep    = 22
	groupGap   = 34
)

// Colours follow the reader's preference for light or dark.
const chartStyle = `<style>
text{font:13px system-ui,sans-serif;fill:#222}.case{font-weight:600}.tick{font-size:11px}
.bar{fill:#3b7dd8}.worse{fill:#c8743a}.whisker,.one,.grid{stroke:#222;stroke-width:1.5}.grid{opacity:.15}
@media(prefers-color-scheme:dark){text{fill:#ddd}.bar{fill:#6aa3f0}.worse{fill:#e0975f}.whisker,.one,.grid{stroke:#ddd}}
</style>
`

// scale maps ratios to pixels by their logarithms, so that half as much and twice
// as much are equally far from 1.
type scale struct{ least, most float64 }

func (s scale) x(ratio float64) float64 {
	share := math.Log(ratio/s.least) / math.Log(s.most/s.least)
	return chartLeft + min(max(share, 0), 1)*(chartRight-chartLeft)
}

// newScale holds all ratios. Intervals may reach beyond it; they are cut.
func newScale(results []result) scale {
	s := scale{least: 0.4, most: 2.5}
	for _, r := range results {
		for _, one := range r.series {
			if e, ok := r.ratio(one, 0); ok && e.median > 0 {
				s.least, s.most = min(s.least, e.median*0.9), max(s.most, e.median*1.1)
			}
		}
	}
	return s
}

// renderSVG draws a bar for each ratio of the cases' main values, with its
// interval, from the line where lbnode and its peer are equal.
func renderSVG(results []result) []byte {
	var body bytes.Buffer
	on := newScale(results)
	y := 72
	for _, r := range results {
		fmt.Fprintf(&body, "<text class=\"case\" x=\"10\" y=\"%d\">%s</text>\n", y, html.EscapeString(r.name+": "+r.columns[0]))
		y += barStep
		for _, s := range r.series {
			if e, ok := r.ratio(s, 0); ok {
				drawBar(&body, y, s.peer, e, on)
				y += barStep
			}
		}
		y += groupGap - barStep
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\">\n%s", chartWidth, y, chartStyle)
	fmt.Fprintf(&out, "<text x=\"10\" y=\"22\">lbnode ÷ peer; left of 1, lbnode needs less</text>\n")
	drawGrid(&out, y-12, on)
	out.Write(body.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}

func drawGrid(out *bytes.Buffer, bottom int, on scale) {
	for _, ratio := range []float64{0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50} {
		if ratio < on.least || ratio > on.most {
			continue
		}
		class := "grid"
		if ratio == 1 {
			class = "one"
		}
		x := on.x(ratio)
		fmt.Fprintf(out, "<text class=\"tick\" x=\"%.1f\" y=\"44\" text-anchor=\"middle\">%g</text>\n", x, ratio)
		fmt.Fprintf(out, "<line class=\"%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"50\" y2=\"%d\"/>\n", class, x, x, bottom)
	}
}

func drawBar(out *bytes.Buffer, y int, peer string, e estimate, on scale) {
	class := "bar"
	if e.median > 1 {
		class = "worse"
	}
	from, to := on.x(min(e.median, 1)), on.x(max(e.median, 1))
	fmt.Fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", chartLeft-8, y, html.EscapeString(peer))
	fmt.Fprintf(out, "<rect class=\"%s\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"14\"/>\n", class, from, y-11, to-from)
	if e.certain() {
		fmt.Fprintf(out, "<line class=\"whisker\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>\n", on.x(e.low), on.x(e.high), y-4, y-4)
	}
	fmt.Fprintf(out, "<text x=\"%d\" y=\"%d\">%s</text>\n", chartRight+10, y, e)
}
