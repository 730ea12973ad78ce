package undo_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/braid-cni/braid/pkg/undo"
)

// Each change is followed by how to take it back. If a later one fails, all are taken back.
func ExampleStack() {
	attach := func(ctx context.Context) (err error) {
		var done undo.Stack
		for _, link := range []string{"net1", "net2"} {
			fmt.Println("make", link)
			done.Push(func(context.Context) error {
				fmt.Println("remove", link)
				return nil
			})
		}
		return errors.Join(errors.New("net3: no such master"), done.Unwind(ctx))
	}
	fmt.Println(attach(context.Background()))
	// Output:
	// make net1
	// make net2
	// remove net2
	// remove net1
	// net3: no such master
}
