//go:build !amd64

package attack_test

func oldCalls() []call { return nil }
