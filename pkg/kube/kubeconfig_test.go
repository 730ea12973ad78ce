package kube

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/failure"
)

// A kubeconfig that does not come, or does not help, is told when it is needed and not before; one
// that comes later is used.
func TestKubeconfigLazy(t *testing.T) {
	f := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { answerPod(w) })
	path := filepath.Join(t.TempDir(), "config")
	a := newAPI(t, APIOptions{Kubeconfig: path})
	_, err := a.Pod(t.Context(), "ns", "p")
	if failure.ReasonOf(err) != failure.InvalidConfig || !strings.Contains(err.Error(), path) {
		t.Errorf("got error %v of class %q", err, failure.ReasonOf(err))
	}
	writeFile(t, path, testKubeconfig("server: "+f.URL+", insecure-skip-tls-verify: true", "token: t"))
	if _, err := a.Pod(t.Context(), "ns", "p"); err != nil {
		t.Error(err)
	}
}

func TestKubeconfigRefused(t *testing.T) {
	const good = "server: 'https://h:1'"
	for name, test := range map[string]struct{ content, want string }{
		"empty":           {"", "no configuration"},
		"no YAML":         {"a: [", "yaml"},
		"a list":          {"[1]", "array"},
		"no such context": {"current-context: x", "context: x"},
		"no such cluster": {
			"{current-context: x, contexts: [{name: x, context: {cluster: why}}]}",
			`"why"`,
		},
		"no such user": {"{current-context: x, contexts: [{name: x, context: {cluster: why, " +
			"user: z}}], clusters: [{name: why, cluster: {}}]}", `"z"`},
		"no server":     {testKubeconfig("", "token: t"), "server"},
		"auth-provider": {testKubeconfig(good, "auth-provider: {name: gcp}"), "gcp"},
		"CA of bad base64": {
			testKubeconfig(good+", certificate-authority-data: '%'", "token: t"),
			"base64",
		},
		"CA no certificate": {
			testKubeconfig(good+", certificate-authority-data: eHg=", "token: t"),
			"root certificates",
		},
		"CA missing": {
			testKubeconfig(good+", certificate-authority: none.pem", "token: t"),
			"none.pem",
		},
		"certificate missing": {testKubeconfig(good, "client-certificate: none.pem"), "none.pem"},
		"key missing":         {testKubeconfig(good, "client-certificate-data: eHg="), "client-key"},
		"proxy no URL":        {testKubeconfig(good+", proxy-url: '::'", "token: t"), "proxy-url"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config")
			writeFile(t, path, test.content)
			_, err := newAPI(t, APIOptions{Kubeconfig: path}).Pod(t.Context(), "ns", "p")
			if failure.ReasonOf(err) != failure.InvalidConfig || !strings.Contains(err.Error(), test.want) ||
				!strings.Contains(err.Error(), path) {
				t.Errorf("got error %v of class %q, want one that names %q and the file",
					err, failure.ReasonOf(err), test.want)
			}
		})
	}
	_, err := newAPI(t, APIOptions{Kubeconfig: t.TempDir()}).Pod(t.Context(), "ns", "p")
	if failure.ReasonOf(err) != failure.InvalidConfig {
		t.Errorf("directory: got error %v", err)
	}
}

// A token file is found beside the kubeconfig, and has to be there.
func TestKubeconfigTokenFile(t *testing.T) {
	f := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { answerPod(w) })
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "config"),
		testKubeconfig("insecure-skip-tls-verify: true, server: '"+f.URL+"/prefix/'", "tokenFile: t"))
	a := newAPI(t, APIOptions{Kubeconfig: filepath.Join(dir, "config")})
	_, err := a.Pod(t.Context(), "ns", "p")
	if failure.ReasonOf(err) != failure.InvalidConfig ||
		!strings.Contains(err.Error(), filepath.Join(dir, "t")) {
		t.Errorf("got error %v of class %q", err, failure.ReasonOf(err))
	}
	writeFile(t, filepath.Join(dir, "t"), "new\n")
	if _, err := a.Pod(t.Context(), "ns", "p"); err != nil {
		t.Fatal(err)
	}
	got := f.seen()[0]
	if got.auth != "Bearer new" || got.path != "/prefix/api/v1/namespaces/ns/pods/p" {
		t.Errorf("request is %+v", got)
	}
}

// A plugin may be asked for the credential.
func TestKubeconfigExec(t *testing.T) {
	f := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { answerPod(w) })
	path := filepath.Join(t.TempDir(), "config")
	credential := `{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",` +
		`"status":{"token":"made"}}`
	writeFile(t, path, testKubeconfig("insecure-skip-tls-verify: true, server: "+f.URL,
		"exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: echo, "+
			"args: ['"+credential+"']}"))
	if _, err := newAPI(t, APIOptions{Kubeconfig: path}).Pod(t.Context(), "ns", "p"); err != nil {
		t.Fatal(err)
	}
	if got := f.seen()[0].auth; got != "Bearer made" {
		t.Errorf("authorization is %q", got)
	}
}

// A client certificate may be in the kubeconfig, or in files beside it.
func TestKubeconfigClientCertificate(t *testing.T) {
	var subject atomic.Value
	f := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		subject.Store(r.TLS.PeerCertificates[0].Subject.CommonName)
		answerPod(w)
	}))
	f.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	f.EnableHTTP2 = true
	f.StartTLS()
	t.Cleanup(f.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw})
	cluster := "server: " + f.URL + ", tls-server-name: example.com, certificate-authority-data: " +
		base64.StdEncoding.EncodeToString(ca)

	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "config"),
		testKubeconfig(cluster, "client-certificate: pair.pem, client-key: pair.pem"))
	writeFile(t, filepath.Join(dir, "pair.pem"), string(bytes.Join(certificate(t, "first"), nil)))
	a := newAPI(t, APIOptions{Kubeconfig: filepath.Join(dir, "config")})
	get := func(a *API, want string) {
		t.Helper()
		if _, err := a.Pod(t.Context(), "ns", "p"); err != nil || subject.Load() != want {
			t.Errorf("the server saw %v, %v, want %s", subject.Load(), err, want)
		}
	}
	get(a, "first")

	pair := certificate(t, "inline")
	writeFile(t, filepath.Join(dir, "inline"), testKubeconfig(cluster,
		"client-certificate-data: "+base64.StdEncoding.EncodeToString(pair[0])+", client-key-data: "+
			base64.StdEncoding.EncodeToString(pair[1])))
	get(newAPI(t, APIOptions{Kubeconfig: filepath.Join(dir, "inline")}), "inline")
}

// certificate makes a certificate and its key, in PEM.
func certificate(t *testing.T, name string) [][]byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
}

// The name to check is the one of the kubeconfig, if it has one.
func TestKubeconfigServerName(t *testing.T) {
	f := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { answerPod(w) })
	ca := base64.StdEncoding.EncodeToString(f.caPEM())
	for name, fine := range map[string]bool{"example.com": true, "example.org": false} {
		path := filepath.Join(t.TempDir(), "config")
		writeFile(t, path, testKubeconfig(
			"server: "+f.URL+", certificate-authority-data: "+ca+", tls-server-name: "+name, "token: t"))
		_, err := newAPI(t, APIOptions{Kubeconfig: path}).Pod(t.Context(), "ns", "p")
		if (err == nil) != fine {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}

func TestInCluster(t *testing.T) {
	for _, host := range []string{"", "localhost"} { // no pod; a pod without a service account
		t.Setenv("KUBERNETES_SERVICE_HOST", host)
		t.Setenv("KUBERNETES_SERVICE_PORT", "1")
		_, err := newAPI(t, APIOptions{}).Pod(t.Context(), "ns", "p")
		if failure.ReasonOf(err) != failure.InvalidConfig ||
			!strings.Contains(err.Error(), "kubeconfig") {
			t.Errorf("host %q: got error %v of class %q", host, err, failure.ReasonOf(err))
		}
	}
}

// A process that has left the place where its token is mounted finds it where it is told.
func TestServiceAccountElsewhere(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "6443")
	for server, want := range map[string]string{
		"": "https://[fd00::1]:6443", "https://api.example:1": "https://api.example:1",
	} {
		config, err := newAPI(t, APIOptions{ServiceAccount: dir, Server: server}).RESTConfig()
		if err != nil || config.Host != want || config.BearerTokenFile != dir+"/token" ||
			config.CAFile != dir+"/ca.crt" {
			t.Errorf("server %q: %+v, %v", server, config, err)
		}
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := newAPI(t, APIOptions{ServiceAccount: dir}).RESTConfig(); err == nil {
		t.Error("there is no server, and no error")
	}
}
