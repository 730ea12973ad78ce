package e2e_test

const (
	gateDir = "/run/e2e-gate"     // of testdata/gate
	dumpDir = "/run/e2e-dump"     // of testdata/dump
	killDir = "/run/e2e-assassin" // of testdata/assassin
	gcFile  = "/run/e2e-gc.json"  // stdin of a GC
)
