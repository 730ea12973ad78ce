// Package servecert makes, shares and rotates the certificate that admission is served with, and
// has the API server trust it.
//
// All replicas share one Secret and any of them may write it, each change being one of a version of
// the Secret. The certificates are made by client-go's util/cert: a new authority for each, whose
// key is thrown away. Rotation takes three steps, so that no request meets a certificate that is
// not trusted yet or no more: the next one is made and its authority trusted; after a while it is
// served; the authority of the former one is trusted until the rotation after it.
//
// Contract: what the Secret holds is not trusted: a certificate that is expired, of other hosts, or
// no certificate is replaced. Configurations that are not there are left so: that is how an
// operator switches admission off.
package servecert

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	admissionclient "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/util/cert"

	"github.com/braid-cni/braid/pkg/kube"
)

// Times of a certificate. Bounds of their order: an API server learns of a change within seconds,
// and every replica within a pass.
const (
	life    = 365 * 24 * time.Hour
	renewal = life / 3         // with that much left, the next one is made
	overlap = 10 * time.Minute // so long the next one is trusted before it is served
)

// The keys of the Secret.
const (
	certKey, keyKey         = corev1.TLSCertKey, corev1.TLSPrivateKeyKey
	nextCertKey, nextKeyKey = "next.crt", "next.key"
	sinceKey                = "next.since"
	formerKey               = "former-ca.crt"
)

// Keeper keeps the certificate of one process.
type Keeper struct {
	API *kube.API
	// Namespace and Secret are where the certificate is shared.
	Namespace, Secret string
	// Hosts are the names and addresses that the API server may call this process by.
	Hosts []string
	// Configuration is the name of the webhook configurations, mutating and validating.
	Configuration string
	// Every is the time between two passes.
	Every time.Duration
	Log   *slog.Logger
	// Now is the clock, time.Now if nil.
	Now func() time.Time

	served atomic.Pointer[tls.Certificate]
}

// GetCertificate returns the present one, for a tls.Config.
func (k *Keeper) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := k.served.Load(); c != nil {
		return c, nil
	}
	return nil, errors.New("there is no certificate yet")
}

// Ready reports whether there is a certificate to serve.
func (k *Keeper) Ready() bool { return k.served.Load() != nil }

// Run makes a pass now and then, until ctx is done.
func (k *Keeper) Run(ctx context.Context) {
	ticker := time.NewTicker(k.Every)
	defer ticker.Stop()
	retry := time.NewTicker(min(k.Every, 2*time.Second))
	defer retry.Stop()
	for {
		next := ticker.C
		if err := k.Pass(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			k.Log.ErrorContext(ctx, "certificate of admission", "error", err)
			next = retry.C
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}

// Pass reads the Secret, renews what is to be renewed, serves what it says and has the
// configurations trust it.
func (k *Keeper) Pass(ctx context.Context) error {
	config, err := k.API.RESTConfig()
	if err != nil {
		return err
	}
	config.Timeout = 20 * time.Second
	core, err := coreclient.NewForConfig(config)
	if err != nil {
		return err
	}
	admission, err := admissionclient.NewForConfig(config)
	if err != nil {
		return err
	}
	secret, err := k.renewed(ctx, core.Secrets(k.Namespace))
	if err != nil {
		return err
	}
	served, err := tls.X509KeyPair(secret.Data[certKey], secret.Data[keyKey])
	if err != nil {
		return fmt.Errorf("secret %s/%s: %w", k.Namespace, k.Secret, err)
	}
	k.served.Store(&served)
	return k.trust(ctx, admission, bundle(secret.Data))
}

// renewed returns the Secret as it is when all that is due has been done.
func (k *Keeper) renewed(
	ctx context.Context, secrets coreclient.SecretInterface,
) (*corev1.Secret, error) {
	for tries := 0; ; tries++ {
		secret, err := secrets.Get(ctx, k.Secret, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("get secret %s/%s: %w", k.Namespace, k.Secret, err)
		}
		if secret.Data == nil {
			secret.Data = map[string][]byte{}
		}
		what, err := k.renew(secret.Data)
		if err != nil || what == "" {
			return secret, err
		}
		secret, err = secrets.Update(ctx, secret, metav1.UpdateOptions{})
		switch {
		case err == nil:
			k.Log.InfoContext(ctx, "certificate of admission: "+what)
			return secret, nil
		case !apierrors.IsConflict(err) || tries > 5:
			return nil, fmt.Errorf("update secret %s/%s: %w", k.Namespace, k.Secret, err)
		}
	}
}

// renew makes the next step of a rotation, if one is due, and says which.
func (k *Keeper) renew(data map[string][]byte) (what string, err error) {
	now := k.now()
	left := k.left(data[certKey], data[keyKey], now)
	nextLeft := k.left(data[nextCertKey], data[nextKeyKey], now)
	since, err := time.Parse(time.RFC3339, string(data[sinceKey]))
	waiting := nextLeft > 0 && err == nil && !since.After(now)
	switch {
	case left <= 0 && waiting:
		k.promote(data)
		return "the next one is served, as the former is not valid", nil
	case left <= 0:
		data[certKey], data[keyKey], err = k.make()
		k.dropNext(data)
		return "a new one is made, as there was none that is valid", err
	case waiting && now.Sub(since) >= overlap:
		k.promote(data)
		return "the next one is served", nil
	case left < renewal && !waiting:
		data[nextCertKey], data[nextKeyKey], err = k.make()
		data[sinceKey] = []byte(now.UTC().Format(time.RFC3339))
		return "the next one is made", err
	}
	return "", nil
}

// promote puts the next certificate in the place of the one that is served, whose authority stays
// trusted for those who were served by it.
func (k *Keeper) promote(data map[string][]byte) {
	data[formerKey] = authority(data[certKey])
	data[certKey], data[keyKey] = data[nextCertKey], data[nextKeyKey]
	k.dropNext(data)
}

// dropNext ends a rotation.
func (k *Keeper) dropNext(data map[string][]byte) {
	for _, key := range []string{nextCertKey, nextKeyKey, sinceKey} {
		delete(data, key)
	}
}

func (k *Keeper) now() time.Time {
	if k.Now != nil {
		return k.Now()
	}
	return time.Now()
}

// make makes a certificate for the hosts, with an authority of its own at the end of the chain.
func (k *Keeper) make() (certificate, key []byte, err error) {
	o := cert.SelfSignedCertKeyOptions{Host: k.Hosts[0], MaxAge: life}
	for _, host := range k.Hosts[1:] {
		if ip := net.ParseIP(host); ip != nil {
			o.AlternateIPs = append(o.AlternateIPs, ip)
		} else {
			o.AlternateDNS = append(o.AlternateDNS, host)
		}
	}
	certificate, key, err = cert.GenerateSelfSignedCertKeyWithOptions(o)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate: %w", err)
	}
	return certificate, key, nil
}

// left returns how long a certificate with its authority is valid for all hosts; nothing for what
// is no such thing.
func (k *Keeper) left(certificate, key []byte, now time.Time) time.Duration {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return 0
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority(certificate)) {
		return 0
	}
	for _, host := range k.Hosts {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: now})
		if err != nil {
			return 0
		}
	}
	return pair.Leaf.NotAfter.Sub(now)
}

// authority returns the last certificate of a chain.
func authority(chain []byte) (last []byte) {
	for {
		block, rest := pem.Decode(chain)
		if block == nil {
			return last
		}
		last, chain = pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}), rest
	}
}

// bundle returns all that is to be trusted.
func bundle(data map[string][]byte) []byte {
	return slices.Concat(authority(data[certKey]), authority(data[nextCertKey]),
		authority(data[formerKey]))
}

// place is a webhook, and what it trusts.
type place struct {
	name  string
	trust []byte
}

// trust has the configurations trust a bundle.
func (k *Keeper) trust(
	ctx context.Context, client admissionclient.AdmissionregistrationV1Interface, bundle []byte,
) error {
	err := trustIn(ctx, client.MutatingWebhookConfigurations(), k.Configuration, bundle,
		func(c *admissionv1.MutatingWebhookConfiguration) (places []place) {
			for i := range c.Webhooks {
				places = append(places, place{c.Webhooks[i].Name, c.Webhooks[i].ClientConfig.CABundle})
			}
			return places
		})
	if err != nil {
		return fmt.Errorf("mutating webhook configuration %s: %w", k.Configuration, err)
	}
	err = trustIn(ctx, client.ValidatingWebhookConfigurations(), k.Configuration, bundle,
		func(c *admissionv1.ValidatingWebhookConfiguration) (places []place) {
			for i := range c.Webhooks {
				places = append(places, place{c.Webhooks[i].Name, c.Webhooks[i].ClientConfig.CABundle})
			}
			return places
		})
	if err != nil {
		return fmt.Errorf("validating webhook configuration %s: %w", k.Configuration, err)
	}
	return nil
}

// configurations are the webhook configurations of one kind.
type configurations[T any] interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (*T, error)
	Patch(
		ctx context.Context, name string, kind types.PatchType, patch []byte, opts metav1.PatchOptions,
		subresources ...string,
	) (*T, error)
}

// trustIn has the webhooks of a configuration trust a bundle. It is no error if there is no such
// configuration.
func trustIn[T any](
	ctx context.Context, all configurations[T], name string, bundle []byte,
	placesOf func(*T) []place,
) error {
	found, err := all.Get(ctx, name, metav1.GetOptions{})
	if err == nil {
		if patch := patchOf(placesOf(found), bundle); patch != nil {
			_, err = all.Patch(ctx, name, types.JSONPatchType, patch, metav1.PatchOptions{})
		}
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// patchOf returns a JSON patch that has all webhooks trust a bundle; nil if they do. It applies
// only to the webhooks that were read.
func patchOf(places []place, bundle []byte) []byte {
	type step struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	var steps []step
	for i, p := range places {
		if !bytes.Equal(p.trust, bundle) {
			steps = append(steps,
				step{"test", fmt.Sprintf("/webhooks/%d/name", i), p.name},
				step{"add", fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", i), bundle})
		}
	}
	if steps == nil {
		return nil
	}
	patch, _ := json.Marshal(steps) //nolint:errcheck // strings and bytes
	return patch
}
