package lab

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Users that have a token from the start. All others get a certificate when they are first asked
// for.
const (
	UserAdmin = "admin" // may do everything
	UserBraid = "braid" // may do nothing until a test binds a role to it
)

const (
	// generous: tests of other packages may be compiling on the same cores
	startTimeout   = 60 * time.Second
	serviceAddress = "10.96.0.1" // of the Service kubernetes
	serviceRange   = "10.96.0.0/16"
)

//go:embed config/audit-policy.yaml
var auditPolicy []byte

// API is a running etcd and kube-apiserver.
type API struct {
	dir  *workdir
	bin  string
	in   *sandbox // nil: the test's own namespaces
	bind string   // address to listen on; may be all
	host string   // address that clients are told
	port int

	ca     *authority
	http   *http.Client
	client kubernetes.Interface
	etcd   *process
	server *process

	mu    sync.Mutex
	users map[string]credential
}

// StartAPI starts an API server for one test, which takes about three seconds: Shared starts one
// for many. Without a controller-manager namespaces are never finally deleted, nothing collects
// garbage, and pods need no service account.
func StartAPI(tb testing.TB) *API {
	tb.Helper()
	shared := NewShared(NewAPI)
	tb.Cleanup(func() { stopFor(tb, shared) })
	return shared.Get(tb)
}

// NewAPI is StartAPI outside a test; the caller has to call Stop.
func NewAPI() (*API, error) { return NewAPIWith() }

// NewAPIWith is NewAPI with more flags for the kube-apiserver, which win.
func NewAPIWith(flags ...string) (*API, error) {
	bin, err := binDir(apiBinaries)
	if err != nil {
		return nil, err
	}
	dir, err := newWorkdir()
	if err != nil {
		return nil, err
	}
	a := &API{dir: dir, bin: bin, bind: "127.0.0.1", host: "127.0.0.1"}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	a.port, err = freePort()
	if err == nil {
		err = a.writeFiles()
	}
	if err == nil {
		// Without a controller-manager there are no service accounts that pods could get.
		err = a.launch(ctx, append([]string{
			"--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none",
		}, flags...)...)
	}
	if err != nil {
		return nil, errors.Join(err, a.Stop())
	}
	return a, nil
}

// launch starts both processes.
func (a *API) launch(ctx context.Context, flags ...string) error {
	a.etcd = a.etcdProcess()
	a.server = a.serverProcess(flags)
	if err := a.etcd.start(); err != nil {
		return err
	}
	if err := a.StartAPIServer(ctx); err != nil {
		return err
	}
	// A fresh API server makes these a moment after it is ready.
	return errors.Join(a.await(ctx, "/api/v1/namespaces/kube-system"),
		a.await(ctx, "/api/v1/namespaces/default"))
}

// writeFiles makes certificates, keys, tokens and the policy, and the clients that use them.
func (a *API) writeFiles() (err error) {
	if a.ca, err = newAuthority(); err != nil {
		return err
	}
	serverCert, serverKey, err := a.ca.server("kube-apiserver", a.host, "127.0.0.1", serviceAddress,
		"localhost", "kubernetes.default.svc")
	if err != nil {
		return err
	}
	// kubectl exec and logs go through the API server, which the kubelet has to know.
	kubeletCert, kubeletKey, err := a.ca.client("kube-apiserver-kubelet-client", "system:masters")
	if err != nil {
		return err
	}
	a.users = map[string]credential{UserAdmin: {token: rand.Text()}, UserBraid: {token: rand.Text()}}
	tokens := fmt.Sprintf("%s,%s,1,\"system:masters\"\n%s,%s,2\n",
		a.users[UserAdmin].token, UserAdmin, a.users[UserBraid].token, UserBraid)
	for name, content := range map[string][]byte{
		"ca.crt": a.ca.pem, "server.crt": serverCert, "server.key": serverKey,
		"kubelet-client.crt": kubeletCert, "kubelet-client.key": kubeletKey,
		"tokens.csv": []byte(tokens), "audit-policy.yaml": auditPolicy,
	} {
		if err := os.WriteFile(a.dir.file(name), content, 0o600); err != nil {
			return fmt.Errorf("write API server's files: %w", err)
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.ca.cert)
	a.http = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: a.in.dial, ForceAttemptHTTP2: true,
	}}
	if a.client, err = kubernetes.NewForConfig(a.AdminConfig()); err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	return writeServiceAccountKey(a.dir.file("service-account.key"))
}

// etcdProcess keeps data in the lab's directory and is reached by a socket there: no port to be
// picked or raced for.
func (a *API) etcdProcess() *process {
	peer := "unix://" + a.dir.file("peer.sock")
	return &process{name: "etcd", in: a.in, log: a.dir.logFile("etcd"), argv: []string{
		a.bin + "/etcd",
		"--name=lab", "--data-dir=" + a.dir.file("etcd"),
		"--listen-client-urls=" + a.etcdURL(), "--advertise-client-urls=" + a.etcdURL(),
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=lab=" + peer,
		"--unsafe-no-fsync", // the data need not outlive the machine
		"--log-level=warn",
	}}
}

func (a *API) etcdURL() string { return "unix://" + a.dir.file("etcd.sock") }

func (a *API) serverProcess(flags []string) *process {
	file := a.dir.file
	argv := []string{
		a.bin + "/kube-apiserver",
		"--etcd-servers=" + a.etcdURL(),
		"--bind-address=" + a.bind, "--advertise-address=" + a.host,
		"--secure-port=" + strconv.Itoa(a.port),
		"--tls-cert-file=" + file("server.crt"), "--tls-private-key-file=" + file("server.key"),
		"--cert-dir=" + a.dir.path, // else it wants to write to /var/run/kubernetes
		"--client-ca-file=" + file("ca.crt"), "--token-auth-file=" + file("tokens.csv"),
		"--authorization-mode=Node,RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + file("service-account.key"),
		"--service-account-signing-key-file=" + file("service-account.key"),
		"--service-cluster-ip-range=" + serviceRange,
		"--kubelet-client-certificate=" + file("kubelet-client.crt"),
		"--kubelet-client-key=" + file("kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP", // there is no DNS to find a node's name in
		"--allow-privileged", // node agents are privileged pods
		"--audit-log-path=" + file("audit.log"), "--audit-policy-file=" + file("audit-policy.yaml"),
		"--audit-log-maxsize=0", // never rotated: Requests reads one file
		"--profiling=false",
	}
	return &process{
		name: "kube-apiserver", in: a.in, log: a.dir.logFile("kube-apiserver"),
		argv: append(argv, flags...),
	}
}

// StartAPIServer starts the API server again, at the address that it had, and waits until it is
// ready. Etcd has kept all objects.
func (a *API) StartAPIServer(ctx context.Context) error {
	if err := a.server.start(); err != nil {
		return err
	}
	for {
		status, err := a.get(ctx, "/readyz")
		if err == nil && status == http.StatusOK {
			return nil
		}
		if !a.server.running() || !a.etcd.running() {
			return a.server.describe(errors.New("start kube-apiserver: it ended"))
		}
		if sleep(ctx, 20*time.Millisecond) != nil {
			return a.server.describe(fmt.Errorf("start kube-apiserver: not ready in time: status %d: %w",
				status, err))
		}
	}
}

// StopAPIServer takes the API server away with SIGKILL: clients' connections are reset, new ones
// are refused.
func (a *API) StopAPIServer() { a.server.kill() }

// Restart stops the API server and starts it again.
func (a *API) Restart(ctx context.Context) error {
	a.StopAPIServer()
	return a.StartAPIServer(ctx)
}

// ChangeServiceAccountKey starts the API server again with another key for the tokens of service
// accounts: all that were made before are refused.
func (a *API) ChangeServiceAccountKey(ctx context.Context) error {
	if err := writeServiceAccountKey(a.dir.file("service-account.key")); err != nil {
		return err
	}
	return a.Restart(ctx)
}

// Stop ends both processes and removes every trace.
func (a *API) Stop() error {
	a.halt()
	return a.dir.remove()
}

// halt kills both processes. What etcd has stored stays.
func (a *API) halt() {
	a.server.kill()
	a.etcd.kill()
	if a.http != nil {
		a.http.CloseIdleConnections()
	}
}

// Logs returns the ends of all logs.
func (a *API) Logs() string { return tails(a.dir.file("log")) }

func (a *API) url() string { return "https://" + net.JoinHostPort(a.host, strconv.Itoa(a.port)) }

// Address returns the host and port of the API server. A cluster's is reachable in its own network
// namespaces only.
func (a *API) Address() (host string, port int) { return a.host, a.port }

// CA returns the certificate authority of the API server in PEM.
func (a *API) CA() []byte { return a.ca.pem }

// Kubeconfig writes a kubeconfig for a user and returns its path. UserAdmin and UserBraid have a
// token; any other user gets a client certificate with the groups given. The file is complete in
// itself.
func (a *API) Kubeconfig(user string, groups ...string) (string, error) {
	c, err := a.credential(user, groups)
	if err != nil {
		return "", err
	}
	// Users may have slashes and colons in their names.
	name := sha256.Sum256([]byte(strings.Join(append([]string{user}, groups...), "\n")))
	path := a.dir.file(hex.EncodeToString(name[:8]) + ".kubeconfig")
	return path, writeKubeconfig(path, a.url(), a.ca.pem, user, c)
}

// TokenKubeconfig writes a kubeconfig for whoever has a token and returns its path. The name is for
// the file alone.
func (a *API) TokenKubeconfig(name, token string) (string, error) {
	path := a.dir.file(name + ".kubeconfig")
	return path, writeKubeconfig(path, a.url(), a.ca.pem, name, credential{token: token})
}

// ClientOf returns a client that uses a kubeconfig of this API server.
func (a *API) ClientOf(kubeconfig string) (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.Dial, config.QPS = a.in.dial, -1
	return kubernetes.NewForConfig(config)
}

// Token returns the token of UserAdmin or UserBraid, and "" for anyone else.
func (a *API) Token(user string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.users[user].token
}

// credential returns how a user proves who they are: made once for a user, and each time for one
// with groups.
func (a *API) credential(user string, groups []string) (credential, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c, ok := a.users[user]; ok && len(groups) == 0 {
		return c, nil
	}
	cert, key, err := a.ca.client(user, groups...)
	if err != nil {
		return credential{}, err
	}
	c := credential{certPEM: cert, keyPEM: key}
	if len(groups) == 0 {
		a.users[user] = c
	}
	return c, nil
}

// AdminConfig returns a client configuration of UserAdmin that works from the test process, also
// where the API server is in another network namespace. Client-side throttling is off.
func (a *API) AdminConfig() *rest.Config {
	return &rest.Config{
		Host:            a.url(),
		BearerToken:     a.Token(UserAdmin),
		TLSClientConfig: rest.TLSClientConfig{CAData: a.ca.pem},
		Dial:            a.in.dial,
		QPS:             -1,
	}
}

// Client returns a client of UserAdmin, always the same one.
func (a *API) Client() kubernetes.Interface { return a.client }

// freePort finds a port of the loopback interface that nobody listens on. It is taken from below
// the range in which the kernel picks ports by itself, so that no outgoing connection takes it
// while the API server is away.
func freePort() (int, error) {
	for range 100 {
		var b [2]byte
		rand.Read(b[:]) // never fails
		port := 20000 + (int(b[0])<<8|int(b[1]))%12000
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("find free port: 100 tries failed")
}
