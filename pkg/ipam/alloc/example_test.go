package alloc_test

import (
	"fmt"
	"net/netip"

	"github.com/braid-cni/braid/pkg/ipam/alloc"
)

// A window is what a range allows. Its blocks are what nodes claim.
func ExampleNewWindow() {
	prefix, first, last, err := alloc.ParseRange("10.9.0.0/24", "10.9.0.20", "10.9.0.50")
	if err != nil {
		fmt.Println(err)
		return
	}
	exclude := []netip.Prefix{netip.MustParsePrefix("10.9.0.32/28")}
	window, err := alloc.NewWindow(prefix, first, last, exclude, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(window.Size(), "addresses")
	for block := range window.Blocks(28) {
		fmt.Println(block)
	}
	// Output:
	// 15 addresses
	// 10.9.0.16/28
	// 10.9.0.48/28
}
