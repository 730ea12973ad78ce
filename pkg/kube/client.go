package kube

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	wbv1 "github.com/braid-cni/braid/pkg/api/whereabouts/v1alpha1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
)

// client talks to an API server's groups, over one http.Client.
type client struct {
	core, nads, blocks, claims, whereabouts rest.Interface
	http                                    *http.Client
	turnstile                               *turnstile
}

// connect returns the client, and makes it the first time. After a failure it tries again: a
// kubeconfig may still come.
func (a *API) connect() (*client, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client != nil {
		return a.client, nil
	}
	config, err := a.RESTConfig()
	if err != nil {
		return nil, err
	}
	if a.client, err = newClient(config, a.transport); err != nil {
		return nil, badKubeconfig(a.opts.Kubeconfig, err)
	}
	return a.client, nil
}

// badKubeconfig returns the error that the API server cannot be reached by what is configured.
func badKubeconfig(kubeconfig string, err error) error {
	if kubeconfig == "" {
		return &failure.Error{
			Reason: failure.InvalidConfig, Field: "kubeconfig",
			Err: fmt.Errorf("is not set, and there is no service account of a pod: %w", err),
			Fix: "set it to a kubeconfig file, or braid.manifests to a directory of manifests",
		}
	}
	return &failure.Error{
		Reason: failure.InvalidConfig, Field: "kubeconfig",
		Err: fmt.Errorf("load %s: %w", kubeconfig, err),
		Fix: "correct the file, or the configuration's key kubeconfig",
	}
}

// RESTConfig returns how to reach the API server, for clients of other kinds. Each call reads the
// kubeconfig anew.
func (a *API) RESTConfig() (*rest.Config, error) {
	config, err := a.opts.load()
	if err != nil {
		return nil, badKubeconfig(a.opts.Kubeconfig, err)
	}
	config.UserAgent = objects.Component + "/" + a.opts.Version
	return config, nil
}

// DefaultKubeconfig returns the kubeconfig that kubectl would take: the first of $KUBECONFIG, else
// that of the user's home; empty if there is neither.
func DefaultKubeconfig() string {
	first, _, _ := strings.Cut(os.Getenv("KUBECONFIG"), string(filepath.ListSeparator))
	if first != "" {
		return first
	}
	home, err := os.UserHomeDir()
	path := filepath.Join(home, ".kube", "config")
	if _, serr := os.Stat(path); err != nil || serr != nil {
		return ""
	}
	return path
}

// load reads the kubeconfig, as kubectl does with --kubeconfig; without one it finds the server as
// a pod does.
func (o *APIOptions) load() (*rest.Config, error) {
	if o.Kubeconfig == "" {
		return o.inCluster()
	}
	var file *clientcmdapi.Config
	var err error
	if o.content != nil {
		file, err = clientcmd.Load(o.content)
	} else {
		file, err = clientcmd.LoadFromFile(o.Kubeconfig)
	}
	if err != nil {
		return nil, err
	}
	if err := clientcmd.ResolveLocalPaths(file); err != nil {
		return nil, err
	}
	if err := clientcmd.ConfirmUsable(*file, file.CurrentContext); err != nil {
		return nil, err
	}
	return clientcmd.NewDefaultClientConfig(*file, &clientcmd.ConfigOverrides{}).ClientConfig()
}

// inCluster returns how a pod reaches the API server: by the files of its ServiceAccount.
func (o *APIOptions) inCluster() (*rest.Config, error) {
	if o.ServiceAccount == "" {
		config, err := rest.InClusterConfig()
		if err == nil && o.Server != "" {
			config.Host = o.Server
		}
		return config, err
	}
	server := o.Server
	if server == "" {
		host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
		if host == "" || port == "" {
			return nil, rest.ErrNotInCluster
		}
		server = "https://" + net.JoinHostPort(host, port)
	}
	return &rest.Config{
		Host: server, BearerTokenFile: filepath.Join(o.ServiceAccount, "token"),
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(o.ServiceAccount, "ca.crt")},
	}, nil
}

func newClient(config *rest.Config, connections transporter) (*client, error) {
	scheme := runtime.NewScheme()
	// Status, in which servers say what is wrong
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	config.QPS = -1
	config.WarningHandler = rest.NoWarnings{}
	shared, err := connections(config)
	if err != nil {
		return nil, err
	}
	c := &client{turnstile: newTurnstile(), http: &http.Client{
		Transport: shared,
		// An API server does not redirect; whoever does is not to get our token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if c.core, err = c.group(config, "/api", schema.GroupVersion{Version: "v1"}); err != nil {
		return nil, err
	}
	for version, group := range map[schema.GroupVersion]*rest.Interface{
		{Group: nadv1.GroupName, Version: nadv1.Version}:       &c.nads,
		{Group: v1alpha1.GroupName, Version: v1alpha1.Version}: &c.blocks,
		{Group: claimv1.GroupName, Version: claimv1.Version}:   &c.claims,
		{Group: wbv1.GroupName, Version: wbv1.Version}:         &c.whereabouts,
	} {
		if *group, err = c.group(config, "/apis", version); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// group returns a client of one API group. All share the connection.
func (c *client) group(
	config *rest.Config, path string, version schema.GroupVersion,
) (*rest.RESTClient, error) {
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = path, &version
	return rest.RESTClientForConfigAndClient(config, c.http)
}

// close closes the connections that no call is using.
func (c *client) close() { utilnet.CloseIdleConnectionsFor(c.http.Transport) }
