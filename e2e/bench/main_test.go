package main

import (
	"strings"
	"testing"
	"time"
)

func TestVerdicts(t *testing.T) {
	got := verdicts([]verdict{
		{"a", 1.05, 1.05, false}, {"b", 1.06, 1.05, false}, {"c", 10, 10, true}, {"d", 9.9, 10, true},
	})
	want := []string{
		"at most", "1.05x  reached", "1.05x  MISSED", "at least", "10.00x  reached", "10.00x  MISSED",
	}
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("it does not say %q:\n%s", w, got)
		}
	}
	if lines := strings.Count(got, "\n"); lines != 4 || strings.Count(got, "MISSED") != 2 {
		t.Errorf("%d lines:\n%s", lines, got)
	}
}

// The ratio is that of pairs: one pair that met something else does not count.
func TestRatioOfPairs(t *testing.T) {
	ms := func(list ...int) (times []time.Duration) {
		for _, n := range list {
			times = append(times, time.Duration(n)*time.Millisecond)
		}
		return times
	}
	p := &pairs{&bench{braid: &meta{name: "Braid"}, times: map[string][]time.Duration{
		"ADD Braid pod": ms(10, 900, 30), "ADD base pod": ms(20, 20, 60),
	}}, &meta{name: "base"}}
	if got := p.ratio("ADD", "pod"); got != 0.5 {
		t.Errorf("ratio %v, want 0.5", got)
	}
}
