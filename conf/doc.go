// Package samples holds what is deployed with Braid and what shows how to use it: CRDs, RBAC, CNI
// configuration, NADs and pods, and the GKE profile. README.md says what is where.
//
// Contract: every file of this folder but the Helm chart, which has tests of its own, is in Files,
// and the tests load each into its type; a file that no loader claims fails them.
package samples

import (
	"embed"
	"io/fs"
)

//go:embed README.md cni crd deploy gke monitoring rbac samples
var files embed.FS

// Files returns the files by their path below conf/, as in
// "crd/network-attachment-definition.yaml".
func Files() fs.FS { return files }
