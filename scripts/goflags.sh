# shellcheck shell=bash
# goflags.sh is sourced by the scripts that build: all of them with the same flags, so that a
# package is compiled once, whoever needs it, the cluster of e2e/cluster among them. A machine's
# first run is mostly compiling.
#
# -trimpath: the same binary from every directory. -dwarf=false: nothing that the scripts build is
# debugged; what panics still says where. CGO_ENABLED=0: static, so that binaries run in containers
# and on another root file system; only `go test -race` needs cgo.
export GOFLAGS='-mod=readonly -trimpath -buildvcs=false -gcflags=all=-dwarf=false'
export GOWORK=off CGO_ENABLED=0

# quietly runs a command and prints only its failure: Go names each module that it downloads.
quietly() {
	local log code=0
	log=$(mktemp)
	"$@" 2>"$log" || code=$?
	[ "$code" = 0 ] || cat "$log" >&2
	rm -f "$log"
	return "$code"
}
