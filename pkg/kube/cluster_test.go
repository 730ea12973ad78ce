package kube

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/failure"
)

// clusterLists are the lists of a cluster, by the path that each asks for, with the names that they
// give.
func clusterLists(ctx context.Context, a *API) map[string]func() ([]string, error) {
	names := func(list []metav1.ObjectMeta, err error) (all []string, _ error) {
		for i := range list {
			all = append(all, list[i].Name)
		}
		return all, err
	}
	return map[string]func() ([]string, error){
		"NodeList /api/v1/nodes": func() (all []string, err error) {
			err = a.EachNode(ctx, func(node *metav1.ObjectMeta, taints []string) {
				all = append(all, strings.TrimSpace(node.Name+" "+strings.Join(taints, " ")))
			})
			return all, err
		},
		"PodList /api/v1/pods": func() ([]string, error) {
			return names(a.PodsOn(ctx, "n"))
		},
		metadataList + " /api/v1/namespaces/x/pods": func() ([]string, error) {
			return names(a.Pods(ctx, "x"))
		},
		metadataList + " /apis/k8s.cni.cncf.io/v1alpha1/ipamclaims": func() ([]string, error) {
			return names(a.IPAMClaims(ctx))
		},
		"IPPoolList /apis/whereabouts.cni.cncf.io/v1alpha1/ippools": func() (all []string, err error) {
			pools, err := a.IPPools(ctx)
			for i := range pools {
				all = append(all, pools[i].Name)
			}
			return all, err
		},
		"OverlappingRangeIPReservationList " +
			"/apis/whereabouts.cni.cncf.io/v1alpha1/overlappingrangeipreservations": func() (all []string,
			err error,
		) {
			list, err := a.Reservations(ctx)
			for i := range list {
				all = append(all, list[i].Name)
			}
			return all, err
		},
	}
}

// Each list goes on through all pages; where the server forgets their state, it begins anew, and
// nothing is there twice. Pods in the node's own network namespace are left out.
func TestAPIClusterLists(t *testing.T) {
	for what := range clusterLists(t.Context(), nil) {
		kind, path, _ := strings.Cut(what, " ")
		f := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
			query, next, name := r.URL.Query(), "", "b"
			switch {
			case r.URL.Path != path:
				http.NotFound(w, r)
				return
			case n == 1:
				next, name = "more", "a"
			case n == 2 && query.Get("continue") == "more":
				answerStatus(w, http.StatusGone, metav1.StatusReasonExpired)
				return
			case n == 3 && query.Get("continue") == "" && query.Get("limit") == "":
				next = "last"
			case n == 4 && query.Get("continue") == "last":
				name = "c"
			default:
				t.Errorf("%s: request %d is %s", what, n, r.URL)
			}
			//nolint:errcheck // a test's server
			fmt.Fprintf(w, `{"kind":%q,"metadata":{"continue":%q},"items":[{"metadata":{"name":%q},`+
				`"spec":{"taints":[{"key":"k"}]}},`+
				`{"metadata":{"name":"host"},"spec":{"hostNetwork":true}}]}`, kind, next, name)
		})
		got, err := clusterLists(t.Context(), f.api(t, 0))[what]()
		want := []string{"b", "host", "c", "host"}
		switch kind {
		case "PodList":
			want = []string{"b", "c"}
		case "NodeList":
			want = []string{"b k", "host", "c k", "host"}
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %v, %v, want %v", what, got, err, want)
		}
		query := f.seen()[0].path
		if kind == "PodList" && !strings.Contains(query, "fieldSelector=spec.nodeName%3Dn") {
			t.Errorf("%s: asks for %s", what, query)
		}
	}
}

// What is no such list is none, and a kind that is not served is told apart: claims then are not
// known, and pools not there.
func TestAPIClusterListsFail(t *testing.T) {
	for what := range clusterLists(t.Context(), nil) {
		kind, _, _ := strings.Cut(what, " ")
		strange := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"kind":"Status","items":[]}`) //nolint:errcheck // a test's server
		})
		_, err := clusterLists(t.Context(), strange.api(t, 0))[what]()
		if failure.ReasonOf(err) != failure.APIUnavailable {
			t.Errorf("%s: strange answer: error %v", what, err)
		}
		unserved := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) })
		_, err = clusterLists(t.Context(), unserved.api(t, 0))[what]()
		wantNotFound := !strings.Contains(what, "ipamclaims")
		if err == nil || apierrors.IsNotFound(err) != wantNotFound {
			t.Errorf("%s: not served: error %v, of kind %s", what, err, kind)
		}
	}
	for _, name := range []string{"", "a/b", "A"} {
		if _, err := newAPI(t, APIOptions{}).PodsOn(t.Context(), name); !apierrors.IsBadRequest(err) {
			t.Errorf("pods on %q: error %v", name, err)
		}
	}
}

// TestR25NodeOutOfService: a node that a controller takes for lost must not learn that its blocks
// are its own.
func TestR25NodeOutOfService(t *testing.T) {
	for taint, lost := range map[string]bool{
		"node.kubernetes.io/not-ready": false, "node.kubernetes.io/out-of-service": true,
	} {
		f := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			//nolint:errcheck // a test's server
			fmt.Fprintf(w, `{"kind":"Node","apiVersion":"v1","metadata":{"name":"n","uid":"u"},`+
				`"spec":{"taints":[{"key":"k"},{"key":%q}]}}`, taint)
		})
		node, err := f.api(t, 0).Node(t.Context(), "n")
		if lost && (failure.Code(err) != 11 || !strings.Contains(err.Error(), "remove the taint")) ||
			!lost && (err != nil || node.UID != "u") {
			t.Errorf("%s: node %v, error %v", taint, node, err)
		}
	}
}

// A pod that has no sandbox yet, or none any more, is not started.
func TestStartedPodsOn(t *testing.T) {
	f := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		//nolint:errcheck // a test's server
		io.WriteString(w, `{"kind":"PodList","metadata":{},"items":[
			{"metadata":{"name":"runs"},"status":{"phase":"Running","podIP":"10.0.0.2"}},
			{"metadata":{"name":"starts"},"status":{"phase":"Pending"}},
			{"metadata":{"name":"ended"},"status":{"phase":"Succeeded","podIP":"10.0.0.3"}},
			{"metadata":{"name":"host"},"spec":{"hostNetwork":true},"status":{"phase":"Running","podIP":"10.0.0.4"}}]}`)
	})
	pods, err := f.api(t, 0).StartedPodsOn(t.Context(), "n")
	if err != nil || len(pods) != 1 || pods[0].Name != "runs" {
		t.Errorf("started pods %+v, %v", pods, err)
	}
}
