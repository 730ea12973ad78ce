package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
	"github.com/braid-cni/braid/pkg/install"
	"github.com/braid-cni/braid/pkg/install/credential"
	"github.com/braid-cni/braid/pkg/install/own"
	"github.com/braid-cni/braid/pkg/kube"
)

// tokenLife is how long the CNI plugin's credential is good for. A quarter of it is left to
// chance, so it outlives an API server that is away for a day.
const tokenLife = 48 * time.Hour

// kubeconfig is the path of the CNI plugin's.
func (a *daemon) kubeconfig() string { return filepath.Join(a.o.stateDir, "kubeconfig") }

// credential keeps the CNI plugin's kubeconfig.
func (a *daemon) credential() *credential.Keeper {
	var last *own.File
	return &credential.Keeper{
		Source: tokens{a}, Trial: trial{a}, Clock: install.SystemClock{},
		Kubeconfig: func(token string) ([]byte, error) {
			return a.api.TokenKubeconfig(token, a.o.server)
		},
		Write: func(ctx context.Context, kubeconfig []byte) error {
			last = own.Bytes(a.kubeconfig(), 0o600, install.KindKubeconfig, kubeconfig)
			_, err := a.store.Put(ctx, last)
			return err
		},
		Intact: func() bool {
			if last == nil {
				return true
			}
			state, err := a.store.Look(context.Background(), last) //nolint:forbidigo // it reads one file
			return err != nil || state == own.Right
		},
		Own: func() ([]byte, error) { return os.ReadFile(filepath.Join(a.o.token, "token")) },
		Report: func(expires time.Time, err error) {
			a.setHealth(partCredential, err)
			if err != nil {
				a.log.Warn("the CNI plugin's credential was not renewed", "error", err)
				return
			}
			a.log.Info("the CNI plugin's credential was renewed", "expires", expires)
			a.meters.CredentialExpires(expires)
			a.health.Update(func(report *nodev1.Report) {
				report.CredentialExpires = metav1.NewTime(expires)
			})
		},
	}
}

// tokens makes tokens of the CNI plugin's account, bound to this node.
type tokens struct{ a *daemon }

// Request implements credential.Source. The token ends with the Node object.
func (t tokens) Request(ctx context.Context) (credential.Token, error) {
	o := t.a.o
	object, err := t.a.api.Node(ctx, o.nodeName)
	if err != nil {
		return credential.Token{}, err
	}
	token, err := t.a.api.RequestToken(ctx, kube.TokenAsk{
		Namespace: o.namespace, Account: o.account, Node: o.nodeName, NodeUID: object.UID,
		Life: tokenLife,
	})
	return credential.Token{Value: token.Value, Expires: token.Expires, Life: token.Life}, err
}

// trial has the API server say whom it takes the bearer of a kubeconfig for.
type trial struct{ a *daemon }

// Try implements credential.Trial. A kubeconfig by which the API server takes the caller for
// somebody else is refused.
func (t trial) Try(ctx context.Context, kubeconfig []byte) error {
	id, err := kube.TryKubeconfig(ctx, kubeconfig,
		kube.APIOptions{Version: buildVersion, NodeName: t.a.o.nodeName, Timeout: timeout})
	if apierrors.IsUnauthorized(err) {
		return &credential.RefusedError{Err: err}
	}
	if err != nil {
		return err
	}
	if want := strings.Join([]string{"system:serviceaccount", t.a.o.namespace, t.a.o.account},
		":"); id.Username != want {
		return &credential.RefusedError{
			Err: fmt.Errorf("it takes the token for %.80q, not for %s", id.Username, want),
		}
	}
	return nil
}
