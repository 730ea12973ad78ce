package kube

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// constructors are those of an API: each connects in its own way, and to the same effect.
func constructors() map[string]func(APIOptions) (*API, error) {
	return map[string]func(APIOptions) (*API, error){"brief": NewAPI, "lasting": NewLastingAPI}
}

// The protocol is HTTP/2, unless the environment forbids it.
func TestTransportProtocol(t *testing.T) {
	for name, open := range constructors() {
		for forbid, want := range map[string]string{"": "HTTP/2.0", "1": "HTTP/1.1"} {
			t.Setenv("DISABLE_HTTP2", forbid)
			f := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { answerPod(w) })
			path := filepath.Join(t.TempDir(), "config")
			// client-go shares what is alike
			writeFile(t, path, testKubeconfig(
				"insecure-skip-tls-verify: true, tls-server-name: 'h"+forbid+"', server: "+f.URL, "token: t"))
			a, err := open(APIOptions{Kubeconfig: path})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(a.Close)
			if _, err := a.Pod(t.Context(), "ns", "p"); err != nil {
				t.Fatal(err)
			}
			if got := f.seen()[0].proto; got != want {
				t.Errorf("%s, DISABLE_HTTP2=%s: %s, want %s", name, forbid, got, want)
			}
		}
	}
}

// A proxy of the kubeconfig is asked for the server.
func TestTransportProxy(t *testing.T) {
	var asked atomic.Value
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Method + " " + r.Host)
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(proxy.Close)
	for name, open := range constructors() {
		asked.Store("")
		path := filepath.Join(t.TempDir(), "config")
		writeFile(t, path,
			testKubeconfig("server: 'https://api.example:6443', proxy-url: '"+proxy.URL+"'", "token: t"))
		a, err := open(APIOptions{Kubeconfig: path, Timeout: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Close)
		_, err = a.Pod(t.Context(), "ns", "p")
		if err == nil || !strings.Contains(err.Error(), "Forbidden") ||
			asked.Load() != "CONNECT api.example:6443" {
			t.Errorf("%s: the proxy was asked %q, and the error is %v", name, asked.Load(), err)
		}
	}
}
