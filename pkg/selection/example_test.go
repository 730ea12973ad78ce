package selection_test

import (
	"fmt"

	"github.com/braid-cni/braid/pkg/selection"
)

// Both forms of the annotation come out as the same list.
func ExampleParse() {
	for _, annotation := range []string{
		`storage, infra/data-plane@net7`,
		`[{"name": "storage"}, {"name": "data-plane", "namespace": "infra", "interface": "net7"}]`,
	} {
		selections, err := selection.Parse(annotation, "web")
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, s := range selections {
			fmt.Printf("%s/%s %q\n", s.Namespace, s.Name, s.Interface)
		}
	}
	// Output:
	// web/storage ""
	// infra/data-plane "net7"
	// web/storage ""
	// infra/data-plane "net7"
}

// An annotation that cannot be understood fails: the error quotes the element.
func ExampleParse_slip() {
	_, err := selection.Parse(`[{"name": "storage", "interfaces": "net7"}]`, "web")
	fmt.Println(err)
	// Output:
	// field networks[0].interfaces: unknown key "interfaces"; write interface
}
