// Package manifests reads Kubernetes objects from YAML and JSON files.
//
// Directory is a source of objects as pkg/kube's API is: the same methods, for hosts without a
// cluster and for tests. Read returns the objects of files that are not applied yet, for
// braidctl lint.
//
// Contract: that of a source, see package kube. A manifest is never written. A file that is broken
// does not hide the others. Several processes may use one directory: what Braid writes is under a
// lock, and each file is whole or not there.
package manifests
