package servecert

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"slices"
	"testing"
	"time"

	"k8s.io/client-go/util/cert"
)

// clock is a Keeper whose time a test sets.
type clock struct {
	Keeper
	now time.Time
}

func newClock() *clock {
	c := &clock{now: time.Now()}
	c.Keeper = Keeper{
		Hosts: []string{"braid-controller.kube-system.svc", "127.0.0.1"},
		Now: func() time.Time {
			return c.now
		},
	}
	return c
}

// step is renew, which must say whether it changes something.
func (c *clock) step(t *testing.T, data map[string][]byte) string {
	t.Helper()
	before := maps.Clone(data)
	what, err := c.renew(data)
	if err != nil {
		t.Fatal(err)
	}
	if changed := !maps.EqualFunc(before, data, bytes.Equal); changed != (what != "") {
		t.Errorf("it says %q, and changed is %t", what, changed)
	}
	return what
}

// trusts checks that API servers that know a bundle trust what is served.
func (c *clock) trusts(t *testing.T, bundle, served []byte) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	block, _ := pem.Decode(served)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range c.Hosts {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: c.now})
		if err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// In a rotation each certificate that is served is trusted before, and for a while after.
func TestRotation(t *testing.T) {
	t.Parallel()
	c, data := newClock(), map[string][]byte{}
	if c.step(t, data) == "" || c.step(t, data) != "" {
		t.Fatal("the first certificate is not made once")
	}
	first, trusted := data[certKey], bundle(data)
	c.trusts(t, trusted, first)
	c.now = c.now.Add(life - renewal - 2*time.Hour)
	if what := c.step(t, data); what != "" {
		t.Fatalf("too early: %s", what)
	}
	c.now = c.now.Add(3 * time.Hour)
	if c.step(t, data) == "" || c.step(t, data) != "" || !bytes.Equal(data[certKey], first) {
		t.Fatal("the next certificate is not made once, or served at once")
	}
	withNext := bundle(data)
	c.trusts(t, withNext, first)
	c.trusts(t, withNext, data[nextCertKey])
	c.now = c.now.Add(overlap)
	if c.step(t, data) == "" || bytes.Equal(data[certKey], first) || data[nextCertKey] != nil {
		t.Fatal("the next certificate is not served")
	}
	c.trusts(t, withNext, data[certKey]) // an API server that has not seen the change
	c.trusts(t, bundle(data), first)     // a replica that has not
	c.now = time.Now()                   // when it was really made
	if what := c.step(t, data); what != "" {
		t.Errorf("it goes on: %s", what)
	}
	if _, err := tls.X509KeyPair(data[certKey], data[keyKey]); err != nil {
		t.Error(err)
	}
}

// What is no valid certificate of these hosts is replaced at once; a next one that is takes its
// place.
func TestBadCertificate(t *testing.T) {
	t.Parallel()
	foreign, foreignKey, err := cert.GenerateSelfSignedCertKey("example.com", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	expired, expiredKey, err := cert.GenerateSelfSignedCertKeyWithOptions(
		cert.SelfSignedCertKeyOptions{
			// it begins an hour ago
			Host: newClock().Hosts[0], AlternateDNS: newClock().Hosts[1:], MaxAge: time.Minute,
		})
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]map[string][]byte{
		"garbage":     {certKey: []byte("x"), keyKey: []byte("y")},
		"foreign":     {certKey: foreign, keyKey: foreignKey},
		"expired":     {certKey: expired, keyKey: expiredKey},
		"another key": {certKey: expired, keyKey: foreignKey},
		"no key":      {certKey: foreign},
	} {
		c, data := newClock(), maps.Clone(bad)
		if c.step(t, data) == "" || c.step(t, data) != "" {
			t.Errorf("%s is not replaced once", name)
		}
		c.trusts(t, bundle(data), data[certKey])

		waiting := map[string][]byte{}
		c.step(t, waiting)
		next := slices.Clone(waiting[certKey])
		waiting[nextCertKey], waiting[nextKeyKey] = waiting[certKey], waiting[keyKey]
		waiting[sinceKey] = []byte(c.now.UTC().Format(time.RFC3339))
		maps.Copy(waiting, bad)
		delete(waiting, keyKey)
		if c.step(t, waiting) == "" || !bytes.Equal(waiting[certKey], next) {
			t.Errorf("%s: the next one is not served", name)
		}
	}
}

// A patch of configurations applies to webhooks that it saw only, and is none where they trust.
func TestPatch(t *testing.T) {
	t.Parallel()
	places := []place{{"a", []byte("x")}, {"b", nil}}
	const want = `[{"op":"test","path":"/webhooks/1/name","value":"b"},{"op":"add",` +
		`"path":"/webhooks/1/clientConfig/caBundle","value":"eA=="}]`
	if got := string(patchOf(places, []byte("x"))); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := patchOf(places[:1], []byte("x")); got != nil {
		t.Errorf("got %s, want none", got)
	}
}
