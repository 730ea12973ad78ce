package failure_test

import (
	"errors"
	"fmt"

	"github.com/braid-cni/braid/pkg/failure"
)

// The package that knows what is wrong makes the Error; its callers add what they know.
func ExampleAtNAD() {
	err := error(&failure.Error{
		Reason: failure.NADInvalid,
		Plugin: "macvlan",
		Field:  "master",
		Err:    errors.New("there is no link ens999"),
		Fix:    "name a link of the node",
	})
	err = failure.AtNAD(err, "web/storage")
	fmt.Println(err)
	fmt.Println(failure.ReasonOf(err), failure.Code(err))
	// Output:
	// NAD web/storage: plugin macvlan: field master: there is no link ens999; name a link of the node
	// NADInvalid 7
}
