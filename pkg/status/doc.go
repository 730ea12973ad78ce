// Package status makes the network-status annotation, which tells the cluster what a pod got (NPWG
// v1.3 s.5), and reads the device-information files that go into it (Device Information
// Specification 1.1.0).
//
// Contract: Build, Merge and the path functions are pure. The file functions touch the one file
// that they are given; removing is idempotent. Nothing here fails an attachment: a caller may log
// an error of this package and go on without the status.
package status
