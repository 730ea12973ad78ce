// Command bare is the least that a plugin can be: it answers VERSION from a constant. The benchmark
// holds Braid's start against it.
package main

import "os"

func main() {
	if _, err := os.Stdout.WriteString(
		`{"cniVersion":"1.1.0","supportedVersions":["1.1.0"]}` + "\n"); err != nil {
		os.Exit(1)
	}
}
