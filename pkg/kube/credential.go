package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/braid-cni/braid/pkg/failure"
)

// nodeNameExtra is where an API server says which node a token is bound to (KEP-4193, Kubernetes
// 1.31).
const nodeNameExtra = "authentication.kubernetes.io/node-name"

// authentication is the API group that reviews are of. Its types are not imported: the CNI binary,
// which has no use for them, would be larger.
const authentication = "authentication.k8s.io/v1"

// wireToken is a TokenRequest, and its answer.
type wireToken struct {
	metav1.TypeMeta `json:",inline"`

	Metadata struct {
		Created metav1.Time `json:"creationTimestamp,omitzero"`
	} `json:"metadata"`
	Spec struct {
		ExpirationSeconds int64     `json:"expirationSeconds"`
		BoundObjectRef    wireBound `json:"boundObjectRef"`
	} `json:"spec"`
	Status struct {
		Token   string      `json:"token"`
		Expires metav1.Time `json:"expirationTimestamp,omitzero"`
	} `json:"status"`
}

type wireBound struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Name       string    `json:"name"`
	UID        types.UID `json:"uid"`
}

// wireReview is the answer to a SelfSubjectReview.
type wireReview struct {
	Status struct {
		User struct {
			Username string              `json:"username"`
			Extra    map[string][]string `json:"extra"`
		} `json:"userInfo"`
	} `json:"status"`
}

// TokenAsk describes a wanted token.
type TokenAsk struct {
	// Namespace and Account name the ServiceAccount.
	Namespace, Account string
	// Node is the Node object that the token is bound to: it ends with it.
	Node    string
	NodeUID types.UID
	// Life is how long it should be valid. The server may grant less or more.
	Life time.Duration
}

// Token is what the server granted.
type Token struct {
	Value string
	// Expires is by the server's clock.
	Expires time.Time
	// Life is how long it was good for when it was made, whatever the clock of this machine says.
	Life time.Duration
}

// RequestToken makes a token of a ServiceAccount that is bound to a Node.
func (a *API) RequestToken(ctx context.Context, ask TokenAsk) (Token, error) {
	if ask.NodeUID == "" {
		return Token{}, fmt.Errorf("request token: node %s has no uid", ask.Node)
	}
	body, err := ask.encode()
	if err != nil {
		return Token{}, err
	}
	c := &call{
		verb: "request token of service account", namespace: ask.Namespace, name: ask.Account,
		request: func(c *client) *rest.Request {
			return send(c.core.Post().Namespace(ask.Namespace).Resource("serviceaccounts").Name(ask.Account).
				SubResource("token"), body)
		},
	}
	answer, err := a.do(ctx, c)
	if err != nil {
		return Token{}, err
	}
	var granted wireToken
	if err := json.Unmarshal(answer, &granted); err != nil {
		return Token{}, a.strange(fmt.Errorf("decode answer: %w", err), c)
	}
	if granted.Status.Token == "" || granted.Status.Expires.IsZero() {
		return Token{}, a.strange(errors.New("the answer has no token, or one without an end"), c)
	}
	token := Token{Value: granted.Status.Token, Expires: granted.Status.Expires.Time, Life: ask.Life}
	if created := granted.Metadata.Created; !created.IsZero() {
		token.Life = token.Expires.Sub(created.Time)
	}
	return token, nil
}

// encode returns the body of the request.
func (ask *TokenAsk) encode() ([]byte, error) {
	request := wireToken{TypeMeta: metav1.TypeMeta{APIVersion: authentication, Kind: "TokenRequest"}}
	request.Spec.ExpirationSeconds = int64(ask.Life / time.Second)
	request.Spec.BoundObjectRef = wireBound{
		APIVersion: "v1", Kind: "Node", Name: ask.Node, UID: ask.NodeUID,
	}
	body, err := json.Marshal(&request)
	if err != nil {
		return nil, fmt.Errorf("encode request of a token: %w", err)
	}
	return body, nil
}

// Identity is what an API server takes a client for.
type Identity struct {
	Username string
	// Node is the Node that the credential is bound to; empty for none, or if the server does not say.
	Node string
}

// Whoami asks the API server for the client's identity (SelfSubjectReview). Every authenticated
// client may ask.
func (a *API) Whoami(ctx context.Context) (Identity, error) {
	body := []byte(`{"apiVersion":"` + authentication + `","kind":"SelfSubjectReview"}`)
	c := &call{verb: "ask who we are", scope: collection, request: func(c *client) *rest.Request {
		return send(c.core.Post().AbsPath("/apis", authentication, "selfsubjectreviews"), body)
	}}
	answer, err := a.do(ctx, c)
	if err != nil {
		return Identity{}, err
	}
	var review wireReview
	if err := json.Unmarshal(answer, &review); err != nil {
		return Identity{}, a.strange(fmt.Errorf("decode answer: %w", err), c)
	}
	user := review.Status.User
	if user.Username == "" {
		return Identity{}, a.strange(errors.New("the answer names nobody"), c)
	}
	id := Identity{Username: user.Username}
	if nodes := user.Extra[nodeNameExtra]; len(nodes) == 1 {
		id.Node = nodes[0]
	}
	return id, nil
}

// TokenKubeconfig returns a kubeconfig for the API server that this source speaks to, with a token
// and nothing else that is secret. server replaces the server's address; empty for that which the
// source has. The certificate authority is in it, so that it needs no other file.
func (a *API) TokenKubeconfig(token, server string) ([]byte, error) {
	config, err := a.RESTConfig()
	if err != nil {
		return nil, err
	}
	if err := rest.LoadTLSFiles(config); err != nil {
		return nil, badKubeconfig(a.opts.Kubeconfig, err)
	}
	if server == "" {
		server = config.Host
	}
	const name = "braid"
	file := clientcmdapi.NewConfig()
	file.Clusters[name] = &clientcmdapi.Cluster{
		Server: server, CertificateAuthorityData: config.CAData, InsecureSkipTLSVerify: config.Insecure,
		TLSServerName: config.ServerName,
	}
	file.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
	file.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	file.CurrentContext = name
	return clientcmd.Write(*file)
}

// TryKubeconfig asks an API server whom it takes the bearer of a kubeconfig's content for. The
// server's denial is an error for which apierrors.IsUnauthorized is true.
func TryKubeconfig(ctx context.Context, content []byte, opts APIOptions) (Identity, error) {
	opts.Kubeconfig, opts.content = "that is tried", content
	a, err := NewAPI(opts)
	if err != nil {
		return Identity{}, err
	}
	defer a.Close()
	id, err := a.Whoami(ctx)
	if err == nil && id.Username == "system:anonymous" {
		return id, &failure.Error{
			Reason: failure.InvalidConfig, Field: "kubeconfig",
			Err: errors.New("its bearer is nobody to the server"),
		}
	}
	return id, err
}
