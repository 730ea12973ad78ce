package file_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/ipam/file"
)

// memory returns a directory on a tmpfs, where there is one.
func memory(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "braid-") //nolint:usetesting // TempDir is on a disk
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// fill makes n leases as the reference does.
func fill(tb testing.TB, dir string, n int) {
	tb.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	addr := netip.MustParseAddr("10.0.0.2")
	for i := range n {
		put(tb, dir, addr.String(), fmt.Sprintf("old%d\r\neth0", i))
		addr = addr.Next()
	}
	put(tb, dir, "last_reserved_ip.0", addr.Prev().String())
}

func put(tb testing.TB, dir, name, content string) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
}

func wish(first, last string) file.Wish {
	r := file.Range{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)}
	bits := 8
	if r.First.Is6() {
		bits = 64
	}
	r.Subnet = netip.PrefixFrom(r.First, bits).Masked()
	r.Gateway = r.Subnet.Addr().Next()
	return file.Wish{Set: file.Set{r}}
}

// The cost of an ADD, and of the ADD and DEL of an interface, does not depend on how many leases
// there are.
func BenchmarkAdd(b *testing.B) {
	for _, n := range []int{0, 1000, 60000} {
		for _, del := range []bool{false, true} {
			name := fmt.Sprintf("leases=%d", n)
			if del {
				name += "/and-del"
			}
			b.Run(name, func(b *testing.B) {
				s := &file.Store{DataDir: memory(b), Network: "net", Boot: file.Kernel()}
				fill(b, filepath.Join(s.DataDir, s.Network), n)
				wishes := []file.Wish{wish("10.0.0.2", "10.255.255.254")}
				// The first operation reads what is there.
				err := s.Del(b.Context(), attachment.ID{Network: "net", ContainerID: "a", IfName: "eth0"}, nil)
				if err != nil {
					b.Fatal(err)
				}
				i := 0
				for b.Loop() {
					key := attachment.ID{ContainerID: fmt.Sprintf("new%d", i), IfName: "eth0"}
					if _, err := s.Add(b.Context(), key, wishes); err != nil {
						b.Fatal(err)
					}
					if del {
						if err := s.Del(b.Context(), key, nil); err != nil {
							b.Fatal(err)
						}
					}
					i++
				}
			})
		}
	}
}
