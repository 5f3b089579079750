package python

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkPythonRate is what an inspector adds to each of 1,000 requests a
// second: it reports the median and the 99th percentile of the time for one.
func BenchmarkPythonRate(b *testing.B) {
	s := needSpawner(b)
	in := newInspector(b, s, Options{Source: example(b, "card_numbers.py")})
	c := request(b, "https://api.example.com/v1/orders", `{"text": "`+strings.Repeat("order 12 of 2024 ", 60)+`"}`)
	var took []time.Duration
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for b.Loop() {
		<-tick.C
		begin := time.Now()
		decide(b, in, c)
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "median-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
