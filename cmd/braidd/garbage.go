package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// garbageRoom is how many bytes of garbage an agent may have before it collects.
	garbageRoom = 12 << 20
	// leastPercent and mostPercent bound what that is of the memory in use: collecting too often
	// costs time, and a node with few NADs needs no more than that.
	leastPercent, mostPercent = 25, 400
)

// keepGarbageRoom has the memory collected whenever about garbageRoom bytes of it are garbage. Go's
// own measure is a share of what is in use. That of an agent is a few MB, or with thousands of NADs
// ten times as much: one share would collect at each ADD, or let the agent grow.
func keepGarbageRoom() {
	debug.SetGCPercent(garbagePercent(inUse()))
	// It is found unreachable at the next collection.
	runtime.AddCleanup(&collected{new(byte)}, func(struct{}) { keepGarbageRoom() }, struct{}{})
}

// collected is nothing but to be collected. Its pointer has it not share memory with others.
type collected struct{ _ *byte }

// inUse returns how many bytes the last collection has left. GOGC is a share of them.
func inUse() uint64 {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"},
	}
	metrics.Read(samples)
	var sum uint64
	for _, s := range samples {
		sum += s.Value.Uint64()
	}
	return sum
}

// garbagePercent returns the share of so many bytes that garbageRoom is.
func garbagePercent(inUse uint64) int {
	percent := 100 * garbageRoom / max(inUse, 1)
	return int(min(max(percent, leastPercent), mostPercent)) //nolint:gosec // it is bounded
}
