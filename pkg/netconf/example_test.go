package netconf_test

import (
	"encoding/json"
	"fmt"

	"github.com/braid-cni/braid/pkg/netconf"
)

// A list keeps what it does not know, and the way numbers are written.
func ExampleParse() {
	list, err := netconf.Parse(
		[]byte(`{"type": "macvlan", "master": "ens224", "mtu": 9e3, "vendor": {"x": 1}}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	list.SetName("storage")
	list.SetAll("deviceID", json.RawMessage(`"0000:02:00.0"`))
	fmt.Println(list.Types())
	fmt.Println(string(list.Bytes()))
	// Output: [macvlan]
	// {"name":"storage","plugins":[{"deviceID":"0000:02:00.0","master":"ens224","mtu":9e3,"type":"macvlan","vendor":{"x":1}}]}
}
