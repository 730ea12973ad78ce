package kube

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
)

// request is what the fake server saw of one.
type request struct {
	method, path, proto, accept, agent, auth, contentType, body string
}

// fakeServer is an API server's HTTP side: answers are scripted, requests and connections are
// counted.
type fakeServer struct {
	*httptest.Server
	connections atomic.Int32

	mu       sync.Mutex
	requests []request
}

// serve starts a server with TLS and HTTP/2. answer gets the number of the request, from 1.
func serve(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *fakeServer {
	t.Helper()
	f := new(fakeServer)
	f.Server = httptest.NewUnstartedServer(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body) // the client's fault, and seen there
			f.mu.Lock()
			f.requests = append(f.requests, request{
				r.Method, r.URL.RequestURI(), r.Proto, r.Header.Get("Accept"), r.Header.Get("User-Agent"),
				r.Header.Get("Authorization"), r.Header.Get("Content-Type"), string(body),
			})
			n := len(f.requests)
			f.mu.Unlock()
			answer(n, w, r)
		}))
	f.EnableHTTP2 = true
	f.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			f.connections.Add(1)
		}
	}
	f.StartTLS()
	t.Cleanup(f.Close)
	return f
}

func (f *fakeServer) seen() []request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]request(nil), f.requests...)
}

func (f *fakeServer) caPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw})
}

// api makes a source for the server, with a kubeconfig on disk.
func (f *fakeServer) api(t *testing.T, timeout time.Duration) *API {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "ca.pem"), string(f.caPEM()))
	writeFile(t, filepath.Join(dir, "config"),
		testKubeconfig("server: "+f.URL+", certificate-authority: ca.pem", "token: secret"))
	return newAPI(t, APIOptions{
		Kubeconfig: filepath.Join(dir, "config"), Version: "1.2", NodeName: "node", Timeout: timeout,
	})
}

func newAPI(t *testing.T, opts APIOptions) *API {
	t.Helper()
	a, err := NewAPI(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func testKubeconfig(cluster, user string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: here
contexts: [{name: there, context: {}}, {name: here, context: {cluster: c, user: u, namespace: x}}]
clusters: [{name: c, cluster: {%s}}]
users: [{name: u, user: {%s}}]
unknown: ignored
`, cluster, user)
}

// answerPod and answerStatus write what an API server would.
func answerPod(w http.ResponseWriter) {
	io.WriteString(w, `{"kind":"PartialObjectMetadata","metadata":{"namespace":"ns","name":"p",`+
		`"uid":"u1","annotations":{"a":"b"}}}`) //nolint:errcheck // a test's server
}

func answerStatus(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(metav1.Status{ //nolint:errcheck // a test's server
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Reason: reason, Message: "scripted",
		Code: int32(code), //nolint:gosec // three digits
	})
}

func TestAPIRequests(t *testing.T) {
	f := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/events"):
			w.WriteHeader(http.StatusCreated)
		case strings.HasPrefix(r.URL.Path, "/apis/"):
			io.WriteString(w, `{"metadata":{"namespace":"ns","name":"a"},"spec":{"config":"{}"}}`)
		default:
			answerPod(w)
		}
	})
	a := f.api(t, 0)
	pod, err := a.Pod(t.Context(), "ns", "p")
	if err != nil || pod.UID != "u1" || pod.Annotations["a"] != "b" {
		t.Fatalf("got pod %+v, %v", pod, err)
	}
	if nad, err := a.NAD(t.Context(), "ns", "a"); err != nil || nad.Spec.Config != "{}" {
		t.Fatalf("got NAD %+v, %v", nad, err)
	}
	if err := a.PublishStatus(t.Context(), pod.Meta(), "[\"é\n\"]"); err != nil {
		t.Fatal(err)
	}
	if err := a.Event(t.Context(), pod.Meta(), "Normal", "AddedInterface", "net1"); err != nil {
		t.Fatal(err)
	}
	const partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	want := []request{
		{method: "GET", path: "/api/v1/namespaces/ns/pods/p", accept: "application/json"},
		{
			method: "GET",
			path: "/apis/k8s.cni.cncf.io/v1/namespaces/ns/network-attachment-definitions/a" +
				"?resourceVersion=0",
			accept: "application/json",
		},
		{
			method: "PATCH", path: "/api/v1/namespaces/ns/pods/p/status?fieldValidation=Ignore",
			accept: partial, contentType: "application/json-patch+json",
			body: `[{"op":"test","path":"/metadata/uid","value":"u1"},` +
				`{"op":"test","path":"/metadata/annotations/k8s.v1.cni.cncf.io~1network-status",` +
				`"value":null},{"op":"add","path":"/metadata/annotations/k8s.v1.cni.cncf.io~1network-status",` +
				`"value":"[\"é\n\"]"}]`,
		},
		{
			method: "POST", path: "/api/v1/namespaces/ns/events?fieldValidation=Ignore", accept: partial,
			contentType: "application/json",
		},
	}
	got := f.seen()
	if len(got) != len(want) {
		t.Fatalf("%d requests, want %d: %+v", len(got), len(want), got)
	}
	for i, w := range want {
		w.proto, w.agent, w.auth = "HTTP/2.0", "braid/1.2", "Bearer secret"
		if w.method == "POST" {
			w.body = got[i].body
		}
		if got[i] != w {
			t.Errorf("request %d is\n%+v, want\n%+v", i, got[i], w)
		}
	}
	if n := f.connections.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	checkEventBody(t, got[3].body)
}

func checkEventBody(t *testing.T, body string) {
	t.Helper()
	var ev objects.Event
	if err := json.Unmarshal([]byte(body), &ev); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(ev.Metadata.Name, "p.") || ev.Metadata.Namespace != "ns" ||
		ev.InvolvedObject != (objects.ObjectReference{
			Kind: "Pod", Namespace: "ns", Name: "p", UID: "u1", APIVersion: "v1",
		}) ||
		ev.Source != (objects.EventSource{Component: "braid", Host: "node"}) || ev.Type != "Normal" ||
		ev.Reason != "AddedInterface" || ev.Message != "net1" ||
		ev.Count != 1 || ev.FirstTimestamp.IsZero() || ev.ReportingController != "braid" ||
		ev.ReportingInstance != "node" {
		t.Errorf("event is %s", body)
	}
}

// The calls after the first share its connection.
func TestAPIOneConnection(t *testing.T) {
	f := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		time.Sleep(5 * time.Millisecond)
		name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		fmt.Fprintf(w, `{"metadata":{"namespace":"ns","name":%q}}`, name)
	})
	a := f.api(t, 0)
	get := func(i int) {
		if _, err := a.NAD(t.Context(), "ns", fmt.Sprintf("n%d", i)); err != nil {
			t.Error(err)
		}
	}
	var all sync.WaitGroup
	for i := range 33 {
		all.Go(func() { get(i) })
	}
	all.Wait()
	if n := f.connections.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	if n := len(f.seen()); n != 33 {
		t.Errorf("%d requests, want 33", n)
	}
}

func TestAPIRetries(t *testing.T) {
	drop := func(w http.ResponseWriter) { panic(http.ErrAbortHandler) }
	code := func(c int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { answerStatus(w, c, "") }
	}
	for name, fail := range map[string]func(http.ResponseWriter){
		"dropped": drop, "429": code(429), "500": code(500), "502": code(502), "503": code(503),
		"504": code(504),
		"no code in it": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure"}`)
		},
		"plain 503": func(w http.ResponseWriter) {
			http.Error(w, "no backend", http.StatusServiceUnavailable)
		},
		"cut short": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "1000")
			answerPod(w)
			drop(w)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
				if n <= 2 {
					fail(w)
				} else {
					answerPod(w)
				}
			})
			a := f.api(t, 0)
			pod, err := a.Pod(t.Context(), "ns", "p")
			if err != nil || pod.UID != "u1" || len(f.seen()) != 3 {
				t.Errorf("got %+v, %v after %d requests, want 3", pod, err, len(f.seen()))
			}
		})
	}
}

// A server that has just started denies everything at first. So a denial counts only where nothing
// was wrong before.
func TestAPIStarts(t *testing.T) {
	for _, code := range []int{401, 403} {
		f := serve(t, func(n int, w http.ResponseWriter, _ *http.Request) {
			switch {
			case n == 1:
				panic(http.ErrAbortHandler)
			case n <= 3:
				answerStatus(w, code, "")
			default:
				answerPod(w)
			}
		})
		if _, err := f.api(t, 0).Pod(t.Context(), "ns", "p"); err != nil || len(f.seen()) != 4 {
			t.Errorf("%d: got error %v after %d requests, want success after 4", code, err, len(f.seen()))
		}
	}
}

// What changes something is repeated too: the same patch, and the same event under the same name.
func TestAPIRetriesWrites(t *testing.T) {
	f := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		switch {
		case n%2 == 1:
			panic(http.ErrAbortHandler) // it may have been done
		case r.Method == http.MethodPost:
			answerStatus(w, http.StatusConflict, metav1.StatusReasonAlreadyExists)
		default:
			answerPod(w)
		}
	})
	a := f.api(t, 0)
	pod := &metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u1"}
	if err := a.PublishStatus(t.Context(), pod, "[]"); err != nil {
		t.Error(err)
	}
	if err := a.Event(t.Context(), pod, "Normal", "R", "m"); err != nil {
		t.Error(err)
	}
	got := f.seen()
	if len(got) != 4 || got[0] != got[1] || got[2] != got[3] {
		t.Errorf("requests are %+v, want two, each repeated", got)
	}
}

func TestAPINoRetry(t *testing.T) {
	for code, is := range map[int]func(error) bool{
		400: apierrors.IsBadRequest, 401: apierrors.IsUnauthorized, 403: apierrors.IsForbidden,
		404: apierrors.IsNotFound, 409: apierrors.IsConflict,
		422: func(err error) bool { return apierrors.IsInvalid(err) || apierrors.IsConflict(err) },
	} {
		for _, plain := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d plain %v", code, plain), func(t *testing.T) {
				f := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
					if plain {
						http.Error(w, "plain text", code)
					} else {
						answerStatus(w, code, "")
					}
				})
				a := f.api(t, 0)
				pod := &metav1.ObjectMeta{
					Namespace: "ns", Name: "p", UID: "u1", Annotations: map[string]string{"a": "1"},
				}
				err := a.PublishStatus(t.Context(), pod, "[]")
				if !is(err) || len(f.seen()) != 1 {
					t.Errorf("got error %v after %d requests, want 1", err, len(f.seen()))
				}
			})
		}
	}
}

// A patch whose tests fail is a conflict; an object that would be invalid is the caller's fault,
// and no answer of an API server is neither.
func TestAPIPublishConflict(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter)
		is     func(error) bool
	}{
		"a test failed": {func(w http.ResponseWriter) {
			answerStatus(w, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid)
		}, apierrors.IsConflict},
		"too long": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnprocessableEntity)
			io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422,
				"details":{"causes":[{"reason":"FieldValueTooLong","field":"metadata.annotations"}]}}`)
		}, apierrors.IsInvalid},
		"a proxy": {func(w http.ResponseWriter) {
			http.Error(w, "no", http.StatusUnprocessableEntity)
		}, apierrors.IsInvalid},
	} {
		f := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { test.answer(w) })
		err := f.api(t, 0).PublishStatus(t.Context(),
			&metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u1"}, "[]")
		if !test.is(err) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}

// A server that accepts a request and forgets it, as a proxy does whose backend went away, costs
// half of the budget.
func TestAPIForgottenRequest(t *testing.T) {
	done := make(chan struct{})
	f := serve(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			<-done
			return
		}
		answerPod(w)
	})
	defer close(done)
	if _, err := f.api(t, 4*time.Second).Pod(t.Context(), "ns", "p"); err != nil {
		t.Error(err)
	}
}

func TestAPIRetryAfter(t *testing.T) {
	f := serve(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			w.Header().Set("Retry-After", "1")
			// as priority and fairness does
			http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
			return
		}
		answerPod(w)
	})
	a := f.api(t, 0)
	start := time.Now()
	if _, err := a.Pod(t.Context(), "ns", "p"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < time.Second {
		t.Errorf("came back after %v, asked to wait 1 s", took)
	}
}

// The ways in which a budget is used up. All name the object and the kubeconfig, and none takes
// longer than it may.
func TestAPIUnavailable(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, in the kernel, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() //nolint:errcheck // a test's listener
	failing := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		answerStatus(w, 503, "")
	})
	patient := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "60")
		http.Error(w, "no backend", http.StatusServiceUnavailable)
	})
	hung := make(chan struct{})
	hanging := serve(t, func(int, http.ResponseWriter, *http.Request) { <-hung })
	defer close(hung)
	closed := serve(t, nil)
	closed.Close()

	const (
		budget = 400 * time.Millisecond
		// half of what the budget is by default, and less than what the server asks for
		late = 10 * time.Second
	)
	for name, test := range map[string]struct {
		url      string
		min, max time.Duration
	}{
		"refused":   {closed.URL, budget / 4, late},
		"failing":   {failing.URL, budget / 4, late},
		"silent":    {"https://" + silent.Addr().String(), budget / 4, late},
		"hanging":   {hanging.URL, budget / 4, late},
		"much load": {patient.URL, 0, late},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config")
			writeFile(t, path, testKubeconfig("insecure-skip-tls-verify: true, server: "+test.url,
				"token: t"))
			a := newAPI(t, APIOptions{Kubeconfig: path, Timeout: budget})
			start := time.Now()
			_, err := a.Pod(t.Context(), "ns", "p")
			took := time.Since(start)
			if failure.ReasonOf(err) != failure.APIUnavailable || !strings.Contains(err.Error(), "ns/p") ||
				!strings.Contains(err.Error(), path) {
				t.Errorf("got error %v of class %q", err, failure.ReasonOf(err))
			}
			if took < test.min || took > test.max {
				t.Errorf("took %v, want %v to %v: %v", took, test.min, test.max, err)
			}
		})
	}
}

// A dead connection is found by its silence, well before the budget ends, and the call goes over a
// new one.
func TestAPIDeadConnection(t *testing.T) {
	f := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { answerPod(w) })
	relay := newRelay(t, f.Listener.Addr().String())
	path := filepath.Join(t.TempDir(), "config")
	writeFile(t, path, testKubeconfig("insecure-skip-tls-verify: true, server: https://"+relay.Addr().
		String(), "token: t"))
	a := newAPI(t, APIOptions{Kubeconfig: path, Timeout: 6 * time.Second})
	if _, err := a.Pod(t.Context(), "ns", "p"); err != nil {
		t.Fatal(err)
	}
	relay.mute()
	if _, err := a.Pod(t.Context(), "ns", "p"); err != nil {
		t.Error(err)
	}
	if n := f.connections.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// relay passes bytes on until it is muted: then the connections that it has pass nothing any more,
// as behind a lost route.
type relay struct {
	net.Listener
	mu    sync.Mutex
	muted []*atomic.Bool
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l}
	t.Cleanup(func() { l.Close() }) //nolint:errcheck // a test's listener
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close() //nolint:errcheck // the client sees it
				return
			}
			t.Cleanup(func() { in.Close(); out.Close() }) //nolint:errcheck // a test's connections
			muted := new(atomic.Bool)
			r.mu.Lock()
			r.muted = append(r.muted, muted)
			r.mu.Unlock()
			go pass(out, in, muted)
			go pass(in, out, muted)
		}
	}()
	return r
}

func pass(to io.Writer, from io.Reader, muted *atomic.Bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if muted.Load() {
			continue
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (r *relay) mute() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.muted {
		m.Store(true)
	}
}

// The caller's end comes before the budget's. One that changed its mind is no sign of a missing
// server; one out of time is.
func TestAPICallerGivesUp(t *testing.T) {
	hung := make(chan struct{})
	f := serve(t, func(int, http.ResponseWriter, *http.Request) { <-hung })
	defer close(hung)
	a := f.api(t, 30*time.Second)
	why := errors.New("the runtime went away")
	for name, test := range map[string]struct {
		ctx    func() (context.Context, context.CancelFunc)
		reason failure.Reason
		is     error
	}{
		"cancel": {func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(t.Context())
			timer := time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
			return ctx, func() { timer.Stop(); cancel(nil) }
		}, failure.TimedOut, why},
		"deadline": {func() (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(t.Context(), 50*time.Millisecond, why)
		}, failure.APIUnavailable, why},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := test.ctx()
			defer cancel()
			start := time.Now()
			_, err := a.Pod(ctx, "ns", "p")
			if failure.ReasonOf(err) != test.reason || !errors.Is(err, test.is) {
				t.Errorf("got error %v of class %q, want class %q", err, failure.ReasonOf(err), test.reason)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestAPIStrangeAnswers(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"HTML":         func(w http.ResponseWriter) { io.WriteString(w, "<html>Please log in</html>") },
		"empty object": func(w http.ResponseWriter) { io.WriteString(w, "{}") },
		"other object": func(w http.ResponseWriter) {
			io.WriteString(w, `{"metadata":{"namespace":"ns","name":"q","uid":"u2"}}`)
		}, //nolint:errcheck // a test's server
		"another's type": func(w http.ResponseWriter) {
			io.WriteString(w, `{"metadata":{"namespace":"ns","name":"p","uid":1}}`)
		}, //nolint:errcheck // a test's server
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { answer(w) })
			_, err := f.api(t, 0).Pod(t.Context(), "ns", "p")
			if failure.ReasonOf(err) != failure.APIUnavailable || len(f.seen()) != 1 {
				t.Errorf("got error %v of class %q after %d requests",
					err, failure.ReasonOf(err), len(f.seen()))
			}
		})
	}
}

// A token is for the server that the kubeconfig names, and for no other.
func TestAPIRedirect(t *testing.T) {
	elsewhere := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { answerPod(w) })
	f := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
	})
	if pod, err := f.api(t, 0).Pod(t.Context(), "ns", "p"); err == nil {
		t.Errorf("got %+v", pod)
	}
	if got := elsewhere.seen(); len(got) > 0 {
		t.Errorf("followed to %+v", got)
	}
}

func TestAPIUntrusted(t *testing.T) {
	f := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { answerPod(w) })
	path := filepath.Join(t.TempDir(), "config")
	writeFile(t, path, testKubeconfig("server: "+f.URL, "token: t"))
	start := time.Now()
	_, err := newAPI(t, APIOptions{Kubeconfig: path}).Pod(t.Context(), "ns", "p")
	if failure.ReasonOf(err) != failure.APIUnavailable ||
		!strings.Contains(err.Error(), "certificate") || time.Since(start) > 15*time.Second {
		t.Errorf("got error %v of class %q after %v", err, failure.ReasonOf(err), time.Since(start))
	}
	if got := f.seen(); len(got) > 0 {
		t.Errorf("sent %+v", got)
	}
}

// A server without the CRD says "not found" of the path. It is not found, and it is said why. A NAD
// that the server's memory does not have yet is asked for in etcd; one that nobody has, too, and no
// more often.
func TestAPINewNAD(t *testing.T) {
	f := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("resourceVersion") || strings.HasSuffix(r.URL.Path, "/nobody") {
			answerStatus(w, http.StatusNotFound, metav1.StatusReasonNotFound)
			return
		}
		io.WriteString(w, `{"metadata":{"namespace":"ns","name":"a"},"spec":{"config":"{}"}}`)
	})
	a := f.api(t, 0)
	if nad, err := a.NAD(t.Context(), "ns", "a"); err != nil || nad.Spec.Config != "{}" {
		t.Errorf("got %+v, %v", nad, err)
	}
	if nad, err := a.NAD(t.Context(), "ns", "nobody"); !apierrors.IsNotFound(err) {
		t.Errorf("got %+v, %v", nad, err)
	}
	if n := len(f.seen()); n != 4 {
		t.Errorf("%d requests, want 4", n)
	}
}

func TestAPIWithoutCRD(t *testing.T) {
	f := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		http.Error(w, "404 page not found", http.StatusNotFound)
	})
	_, err := f.api(t, 0).NAD(t.Context(), "ns", "a")
	if !apierrors.IsNotFound(err) || failure.ReasonOf(err) != failure.NADNotFound ||
		!strings.Contains(err.Error(), "CustomResourceDefinition") {
		t.Errorf("got error %v of class %q", err, failure.ReasonOf(err))
	}
}

func TestAPINegativeTimeout(t *testing.T) {
	if _, err := NewAPI(APIOptions{Timeout: -1}); failure.ReasonOf(err) != failure.InvalidConfig {
		t.Errorf("got error %v", err)
	}
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
