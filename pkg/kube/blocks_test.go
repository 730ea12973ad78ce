package kube

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
)

func aBlock(name string) *v1alpha1.IPBlock {
	return &v1alpha1.IPBlock{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.IPBlockSpec{
			Space: "s", CIDR: "10.0.0.0/28", Owner: &v1alpha1.Node{NodeName: "n", NodeUID: "u"},
		},
	}
}

// storedJSON is a block as an API server sends it.
func storedJSON(name string) string {
	return fmt.Sprintf(`{"apiVersion":"ipam.braid-cni.io/v1alpha1","kind":"IPBlock",`+
		`"metadata":{"creationTimestamp":"2026-11-24T18:13:12Z",`+
		`"generation":1,"managedFields":[{"apiVersion":"ipam.braid-cni.io/v1alpha1",`+
		`"fieldsType":"FieldsV1","fieldsV1":{"f:spec":{}},`+
		`"manager":"braid","operation":"Update","time":"2026-11-24T18:13:12Z"},`+
		`{"apiVersion":"ipam.braid-cni.io/v1alpha1",`+
		`"fieldsType":"FieldsV1","fieldsV1":{"f:status":{}},"manager":"braid","operation":"Update",`+
		`"subresource":"status",`+
		`"time":"2026-11-24T18:13:12Z"}],"name":%q,"resourceVersion":"7",`+
		`"uid":"64f052a5-bd4d-47df-b557-292cbd01ecd2"},`+
		`"spec":{"cidr":"10.0.0.0/28","owner":{"bootID":"31761ebb-46c3-4e20-9d96-270ed432570e",`+
		`"nodeName":"node-0000001",`+
		`"nodeUID":"e57f0748-a1e0-4b0d-9575-9b132bee469f"},"space":"default"},"status":{"free":6,`+
		`"used":10}}`, name)
}

func listJSON(next string, names ...string) string {
	var items []string
	for _, name := range names {
		items = append(items, storedJSON(name))
	}
	return fmt.Sprintf(`{"apiVersion":"ipam.braid-cni.io/v1alpha1","kind":"IPBlockList",`+
		`"metadata":{"continue":%q,"resourceVersion":"9"},"items":[%s]}`,
		next, strings.Join(items, ","))
}

// objectCalls makes each call of a store of blocks but the lists, by its name.
func objectCalls(t *testing.T, a *API, b *v1alpha1.IPBlock) map[string]error {
	t.Helper()
	claim := &claimv1.IPAMClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c", UID: "u"}}
	_, created := a.CreateBlock(t.Context(), b)
	_, got := a.Block(t.Context(), b.Name)
	_, updated := a.UpdateBlock(t.Context(), b)
	_, gotClaim := a.IPAMClaim(t.Context(), "ns", "c")
	return map[string]error{
		"CreateBlock": created, "Block": got, "UpdateBlock": updated,
		"UpdateBlockStatus": a.UpdateBlockStatus(t.Context(), b),
		"DeleteBlock":       a.DeleteBlock(t.Context(), b), "IPAMClaim": gotClaim,
		"SetIPAMClaimIPs": a.SetIPAMClaimIPs(t.Context(), claim, nil),
	}
}

func versionedBlock() *v1alpha1.IPBlock {
	b := aBlock("b")
	b.UID, b.ResourceVersion = "u1", "6"
	return b
}

// A block is decoded without who manages its fields, and sent without it.
func TestAPIBlockRequests(t *testing.T) {
	f := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, storedJSON("b")) //nolint:errcheck // a test's server
	})
	a := f.api(t, 0)
	got, err := a.Block(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	if got.ManagedFields != nil || got.UID != "64f052a5-bd4d-47df-b557-292cbd01ecd2" ||
		got.ResourceVersion != "7" || got.Generation != 1 ||
		got.Spec.Owner.NodeName != "node-0000001" || got.Spec.CIDR != "10.0.0.0/28" ||
		got.Status.Used != 10 || got.TypeMeta != objects.BlockType() {
		t.Errorf("got %+v", got)
	}
	b := versionedBlock()
	b.ManagedFields, b.Labels = []metav1.ManagedFieldsEntry{{Manager: "x"}}, map[string]string{
		"mine": "1",
	}
	if _, err := a.UpdateBlock(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := a.UpdateBlockStatus(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := a.DeleteBlock(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	const path = "/apis/ipam.braid-cni.io/v1alpha1/ipblocks"
	for i, want := range []request{
		{method: "GET", path: path + "/b"},
		{
			method: "PUT", path: path + "/b?fieldValidation=Ignore", contentType: "application/json",
			body: `{"kind":"IPBlock","apiVersion":"ipam.braid-cni.io/v1alpha1","metadata":{"name":"b",` +
				`"uid":"u1","resourceVersion":"6","labels":{"mine":"1"}},` +
				`"spec":{"space":"s","cidr":"10.0.0.0/28","owner":{"nodeName":"n","nodeUID":"u"}},` +
				`"status":{"used":0,"free":0}}`,
		},
		{
			method: "PATCH", path: path + "/b/status?fieldValidation=Ignore",
			contentType: "application/json-patch+json",
			body: `[{"op":"test","path":"/metadata/uid","value":"u1"},{"op":"add","path":"/status",` +
				`"value":{"used":0,"free":0}}]`,
		},
		{
			method: "DELETE", path: path + "/b", contentType: "application/json",
			body: `{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"u1",` +
				`"resourceVersion":"6"}}`,
		},
	} {
		got := f.seen()[i]
		if got.method != want.method || got.path != want.path || got.contentType != want.contentType ||
			got.body != want.body {
			t.Errorf("request %d is\n%+v, want\n%+v", i, got, want)
		}
	}
}

// A list comes in pages, which together are of one state; from the server's memory it comes at
// once.
func TestAPIBlocksPages(t *testing.T) {
	f := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		answer := listJSON("", "c")
		if r.URL.Query().Get("continue") == "" && r.URL.Query().Get("limit") != "" {
			answer = listJSON("more+/=", "a", "b")
		}
		io.WriteString(w, answer) //nolint:errcheck // a test's server
	})
	a := f.api(t, 0)
	list, err := a.Blocks(t.Context(),
		metav1.ListOptions{FieldSelector: "spec.space=s,spec.owner.nodeName=n", ResourceVersion: "5"})
	if err != nil || len(list) != 3 || list[0].Name != "a" || list[2].Name != "c" ||
		list[1].TypeMeta != objects.BlockType() || list[1].ManagedFields != nil {
		t.Errorf("got %+v, %v", list, err)
	}
	list, err = a.Blocks(t.Context(), metav1.ListOptions{ResourceVersion: "0"})
	if err != nil || len(list) != 1 {
		t.Errorf("got %+v, %v", list, err)
	}
	const path = "/apis/ipam.braid-cni.io/v1alpha1/ipblocks?"
	const selector = "fieldSelector=spec.space%3Ds%2Cspec.owner.nodeName%3Dn&limit=500"
	for i, want := range []string{
		path + selector + "&resourceVersion=5", path + "continue=more%2B%2F%3D&" + selector,
		path + "resourceVersion=0",
	} {
		if got := f.seen()[i]; got.method != "GET" || got.path != want {
			t.Errorf("request %d is %s %s, want %s", i, got.method, got.path, want)
		}
	}
}

// Where the state that the pages are of is forgotten between two of them, all comes anew, at once.
func TestAPIBlocksExpired(t *testing.T) {
	f := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		switch n {
		case 1:
			io.WriteString(w, listJSON("more", "a")) //nolint:errcheck // a test's server
		case 2:
			answerStatus(w, http.StatusGone, metav1.StatusReasonExpired)
		default:
			io.WriteString(w, listJSON("", "a", "b")) //nolint:errcheck // a test's server
		}
	})
	list, err := f.api(t, 0).Blocks(t.Context(), metav1.ListOptions{})
	if err != nil || len(list) != 2 || len(f.seen()) != 3 || strings.Contains(f.seen()[2].path, "?") {
		t.Errorf("got %d blocks, %v, after %+v", len(list), err, f.seen())
	}
}

// What answers with some JSON has not said that there are no blocks, or no nodes.
func TestAPIBlocksStrangeAnswers(t *testing.T) {
	for _, answer := range []string{
		"{}", "[]", "<html>", `{"kind":"List","items":[]}`, storedJSON("a"),
		`{"kind":"IPBlockList","items":[{"spec":1}]}`,
	} {
		f := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { io.WriteString(w, answer) })
		a := f.api(t, 0)
		list, listed := a.Blocks(t.Context(), metav1.ListOptions{})
		count, counted := a.NodeCount(t.Context())
		for call, err := range map[string]error{"Blocks": listed, "NodeCount": counted} {
			if failure.ReasonOf(err) != failure.APIUnavailable {
				t.Errorf("%s of %.40q: got %d, %d, error %v of class %q",
					call, answer, len(list), count, err, failure.ReasonOf(err))
			}
		}
	}
}

// An API server that has never heard of blocks has not said that one is not there.
func TestAPIBlocksUnserved(t *testing.T) {
	f := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "404 page not found", http.StatusNotFound)
	})
	a := f.api(t, 0)
	calls := objectCalls(t, a, versionedBlock())
	_, calls["Blocks"] = a.Blocks(t.Context(), metav1.ListOptions{})
	for call, err := range calls {
		if failure.ReasonOf(err) != failure.APIUnavailable || apierrors.IsNotFound(err) ||
			!strings.Contains(err.Error(), "CustomResourceDefinition") {
			t.Errorf("%s: got error %v of class %q", call, err, failure.ReasonOf(err))
		}
	}
}

// A conflict is an answer, not a reason to try again; what is invalid in an object is no conflict.
func TestAPIBlocksConflict(t *testing.T) {
	f := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			io.WriteString(w, `{"metadata":{"namespace":"ns","name":"c","uid":"u","resourceVersion":"1"}}`)
			return
		}
		answerStatus(w, http.StatusConflict, metav1.StatusReasonConflict)
	})
	for call, err := range objectCalls(t, f.api(t, 0), versionedBlock()) {
		if reads := call == "Block" || call == "IPAMClaim"; !reads && !apierrors.IsConflict(err) {
			t.Errorf("%s: got error %v, want conflict", call, err)
		}
	}
	count := map[string]int{}
	for _, r := range f.seen() {
		count[r.method+" "+strings.TrimPrefix(r.path, "/apis/")]++
	}
	for request, n := range count {
		want := 1
		if strings.Contains(request, claimv1.Resource) {
			want = maxClaimTries
			if strings.HasPrefix(request, "GET") {
				want++ // the claim was asked for by itself, too
			}
		}
		if n != want {
			t.Errorf("%d times %s, want %d", n, request, want)
		}
	}
	invalid := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnprocessableEntity)
		status := apierrors.NewInvalid(schema.GroupKind{Group: v1alpha1.GroupName, Kind: v1alpha1.Kind},
			"b", nil).ErrStatus
		status.Details.Causes = []metav1.StatusCause{
			{Type: metav1.CauseTypeFieldValueInvalid, Field: "status.used"},
		}
		json.NewEncoder(w).Encode(status) //nolint:errcheck // a test's server
	})
	err := invalid.api(t, 0).UpdateBlockStatus(t.Context(), versionedBlock())
	if !apierrors.IsInvalid(err) {
		t.Errorf("got error %v, want invalid", err)
	}
}

// What it takes to read 4096 blocks, which is what a node does that looks for a free one.
func BenchmarkBlocks(b *testing.B) {
	var names []string
	for i := range 4096 {
		names = append(names, fmt.Sprintf("default-10-0-%d-%d-28", i/16, i%16*16))
	}
	answer := []byte(listJSON("", names...))
	b.SetBytes(int64(len(answer)))
	b.ReportAllocs()
	for b.Loop() {
		var page struct{ Items []wireBlock }
		if err := json.Unmarshal(answer, &page); err != nil || len(page.Items) != len(names) {
			b.Fatal(len(page.Items), err)
		}
	}
}
