package credential_test

import (
	"context"
	"fmt"
	"time"

	"github.com/braid-cni/braid/pkg/install/credential"
)

// source grants tokens, and accepts them.
type source struct{}

func (source) Request(context.Context) (credential.Token, error) {
	return credential.Token{Value: "t", Life: time.Hour}, nil
}

func (source) Try(context.Context, []byte) error { return nil }

func ExampleKeeper_Renew() {
	k := &credential.Keeper{
		Source: source{}, Trial: source{}, Clock: &clock{},
		Kubeconfig: func(token string) ([]byte, error) { return []byte("token: " + token), nil },
		Write: func(_ context.Context, kubeconfig []byte) error {
			fmt.Println(string(kubeconfig))
			return nil
		},
	}
	token, err := k.Renew(context.Background())
	fmt.Println(token.Life, err)
	// Output:
	// token: t
	// 1h0m0s <nil>
}
