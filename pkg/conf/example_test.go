package conf_test

import (
	"fmt"

	"github.com/braid-cni/braid/pkg/conf"
)

// A configuration of Multus is one of Braid, with Braid's own keys in one object.
func ExampleLoad() {
	c, err := conf.Load([]byte(`{
		"cniVersion": "1.1.0", "name": "braid", "type": "braid",
		"clusterNetwork": "/etc/cni/net.d/10-flannel.conflist",
		"globalNamespaces": "infra,default",
		"braid": {"secondaryDefaultRoute": "refuse"}
	}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.StateDir, c.GlobalNamespaces, c.SecondaryDefaultRoute)
	_, err = conf.Load([]byte(
		`{"cniVersion": "1.1.0", "type": "braid", "braid": {"stateDirs": "/run"}}`))
	fmt.Println(err != nil)
	// Output:
	// /run/braid [infra default] refuse
	// true
}
