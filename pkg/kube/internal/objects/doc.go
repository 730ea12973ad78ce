// Package objects holds what the sources of pkg/kube share: how objects are named and checked, what
// is read of a pod, and how an event is written.
//
// Contract: no I/O. What is refused is refused with the error of an API server: IsBadRequest.
package objects
