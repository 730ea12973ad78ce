package kube

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/failure"
)

// A token that is bound to a Node is its ServiceAccount's, names the node, and ends with it.
func TestAPIServerNodeToken(t *testing.T) {
	server, _ := startAPI(t)
	ctx := t.Context()
	kubeconfig, err := server.Kubeconfig("token-admin", "system:masters")
	if err != nil {
		t.Fatal(err)
	}
	admin := newAPI(t, APIOptions{Kubeconfig: kubeconfig, Version: "test"})
	const node, name = "token-node", "braid-token-test"
	server.CreateNode(t, node)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err = server.client.CoreV1().ServiceAccounts("kube-system").
		Create(ctx, account, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	meta, err := admin.Node(ctx, node)
	if err != nil {
		t.Fatal(err)
	}
	ask := TokenAsk{
		Namespace: "kube-system", Account: name, Node: node, NodeUID: meta.UID, Life: time.Hour,
	}
	granted, err := admin.RequestToken(ctx, ask)
	if err != nil || time.Until(granted.Expires) < 50*time.Minute ||
		time.Until(granted.Expires) > 70*time.Minute || granted.Life != time.Hour {
		t.Fatalf("got a token until %v, of life %v, %v", granted.Expires, granted.Life, err)
	}
	token := granted.Value
	content, err := admin.TokenKubeconfig(token, "")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(content, []byte("client-key")) {
		t.Error("the admin's own credential is in the kubeconfig")
	}
	want := Identity{Username: "system:serviceaccount:kube-system:" + name, Node: node}
	if id, err := TryKubeconfig(ctx, content, APIOptions{}); err != nil || id != want {
		t.Errorf("the server sees %+v, %v, want %+v", id, err, want)
	}
	forged := bytes.Replace(content, []byte(token), []byte(token[:len(token)-8]+"AAAAAAAA"), 1)
	if id, err := TryKubeconfig(ctx, forged, APIOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("a forged token is %+v, %v", id, err)
	}
	for what, wrong := range map[string]func(*TokenAsk){
		"account": func(a *TokenAsk) { a.Account = "nobody" },
		"node":    func(a *TokenAsk) { a.Node = "nowhere" },
		"uid":     func(a *TokenAsk) { a.NodeUID = "another" },
		"no uid":  func(a *TokenAsk) { a.NodeUID = "" },
	} {
		bad := ask
		wrong(&bad)
		if _, err := admin.RequestToken(ctx, bad); err == nil {
			t.Errorf("a token for the wrong %s", what)
		}
	}
	if err := server.client.CoreV1().Nodes().Delete(ctx, node, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// the server caches for 10 s
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		_, err := TryKubeconfig(ctx, content, APIOptions{})
		if apierrors.IsUnauthorized(err) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the node is gone, and its token still good: %v", err)
		}
	}
}

func TestTryKubeconfig(t *testing.T) {
	answer := ""
	f := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, answer) //nolint:errcheck // a test's server
	})
	content := []byte(testKubeconfig("insecure-skip-tls-verify: true, server: "+f.URL,
		"token: secret"))
	const review = `{"kind":"SelfSubjectReview","status":{"userInfo":{"username":%q,` +
		`"extra":{"authentication.kubernetes.io/node-name":["n"]}}}}`
	answer = fmt.Sprintf(review, "u")
	id, err := TryKubeconfig(t.Context(), content, APIOptions{})
	if err != nil || id != (Identity{"u", "n"}) {
		t.Errorf("got %+v, %v", id, err)
	}
	got := f.seen()[0]
	if got.auth != "Bearer secret" || got.method != "POST" ||
		!strings.HasPrefix(got.path, "/apis/authentication.k8s.io/v1/selfsubjectreviews") {
		t.Errorf("request is %+v", got)
	}
	for text, reason := range map[string]failure.Reason{
		fmt.Sprintf(review, "system:anonymous"): failure.InvalidConfig, "{}": failure.APIUnavailable,
		"x": failure.APIUnavailable,
	} {
		answer = text
		if id, err := TryKubeconfig(t.Context(), content, APIOptions{}); failure.ReasonOf(err) != reason {
			t.Errorf("%s: got %+v, %v", text, id, err)
		}
	}
	_, err = TryKubeconfig(t.Context(), []byte("a: ["), APIOptions{})
	if failure.ReasonOf(err) != failure.InvalidConfig {
		t.Errorf("no kubeconfig: %v", err)
	}
}

func TestRequestTokenStrange(t *testing.T) {
	for _, answer := range []string{"x", "{}", `{"status":{"token":"t"}}`} {
		f := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { io.WriteString(w, answer) })
		_, err := f.api(t, 0).RequestToken(t.Context(),
			TokenAsk{Namespace: "n", Account: "a", Node: "n", NodeUID: "u", Life: time.Hour})
		if failure.ReasonOf(err) != failure.APIUnavailable {
			t.Errorf("%s: %v", answer, err)
		}
	}
}

// The address of the server may be another, for nodes where a ClusterIP is not there at boot.
func TestTokenKubeconfig(t *testing.T) {
	f := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { answerPod(w) })
	content, err := f.api(t, 0).TokenKubeconfig("t", "https://10.0.0.1:6443")
	if err != nil || !bytes.Contains(content, []byte("server: https://10.0.0.1:6443")) ||
		!bytes.Contains(content, []byte("certificate-authority-data: ")) ||
		bytes.Contains(content, []byte("secret")) {
		t.Errorf("got %s, %v", content, err)
	}
}
