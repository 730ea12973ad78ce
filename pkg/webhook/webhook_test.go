package webhook

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// reviewer denies objects of the name "no", does not know about "what", and allows the rest.
type reviewer struct{ deadline time.Duration }

func (r *reviewer) Review(
	ctx context.Context, req *admissionv1.AdmissionRequest,
) (*admissionv1.AdmissionResponse, string) {
	at, _ := ctx.Deadline()
	r.deadline = time.Until(at)
	response := &admissionv1.AdmissionResponse{UID: req.UID, Allowed: true}
	switch req.Name {
	case "no":
		response.Allowed, response.Result = false, &metav1.Status{
			Code: http.StatusForbidden, Message: "no",
		}
		return response, "NADNotFound"
	case "what":
		response.Allowed, response.Result = false, &metav1.Status{
			Code: http.StatusServiceUnavailable, Message: "what",
		}
		return response, "Unknown"
	}
	return response, ""
}

func newServer() (*Server, *reviewer, http.Handler) {
	r := &reviewer{}
	s := &Server{Reviewer: r, Ready: func() bool {
		return true
	}, Kinds: []string{"Pod"}, Log: slog.New(slog.DiscardHandler), ending: make(chan struct{})}
	return s, r, s.handler()
}

func ask(h http.Handler, method, target, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, strings.NewReader(body)))
	return w
}

// Each review has an answer for its uid, within the API server's patience, and is counted; what is
// no review is refused.
func TestReview(t *testing.T) {
	t.Parallel()
	_, r, h := newServer()
	const head = `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", ` +
		`"request": {"uid": "u", "kind": {"kind": "%K"}, "name": "%N"}}`
	review := func(kind, name string) string {
		return strings.NewReplacer("%K", kind, "%N", name).Replace(head)
	}
	for _, test := range []struct {
		kind, name string
		allowed    bool
	}{
		{"Pod", "yes", true},
		{"Pod", "no", false},
		{"Pod", "what", false},
		{strings.Repeat("x", 99), "yes", true},
	} {
		w := ask(h, http.MethodPost, Path+"?timeout=4s", review(test.kind, test.name))
		var answer admissionv1.AdmissionReview
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Response == nil {
			t.Fatal(err, w.Body)
		}
		if answer.Response.UID != "u" || answer.Response.Allowed != test.allowed ||
			answer.APIVersion != "admission.k8s.io/v1" {
			t.Errorf("%+v: %s", test, w.Body)
		}
		if r.deadline < 3*time.Second || r.deadline > 3500*time.Millisecond {
			t.Errorf("the review may take %v", r.deadline)
		}
	}
	for body, code := range map[string]int{
		"":   400,
		"{}": 400,
		"[":  400,
		strings.Replace(review("Pod", "yes"), "/v1", "/v1beta1", 1):                            400,
		`{"apiVersion": "admission.k8s.io/v1", "pad": "` + strings.Repeat("x", maxBody) + `"}`: 413,
	} {
		if w := ask(h, http.MethodPost, Path, body); w.Code != code {
			t.Errorf("%.40s: %d, want %d", body, w.Code, code)
		}
	}
	if w := ask(h, http.MethodGet, Path, ""); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", w.Code)
	}
	metrics := ask(h, http.MethodGet, "/metrics", "").Body.String()
	for _, line := range []string{
		`braid_admission_reviews_total{kind="Pod",reason="",result="allowed"} 1`,
		`braid_admission_reviews_total{kind="Pod",reason="NADNotFound",result="denied"} 1`,
		`braid_admission_reviews_total{kind="Pod",reason="Unknown",result="unknown"} 1`,
		`braid_admission_reviews_total{kind="other",reason="",result="allowed"} 1`,
		`braid_admission_duration_seconds_count{kind="Pod"} 3`,
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("the metrics have no %s", line)
		}
	}
}

// A server that is not ready, or ends, is sent no requests.
func TestReadyz(t *testing.T) {
	t.Parallel()
	s, _, h := newServer()
	ready := false
	s.Ready = func() bool { return ready }
	for _, want := range []int{503, 200} {
		if w := ask(h, http.MethodGet, "/readyz", ""); w.Code != want {
			t.Errorf("ready is %t: %d", ready, w.Code)
		}
		ready = true
	}
	close(s.ending)
	if w := ask(h, http.MethodGet, "/readyz", ""); w.Code != 503 {
		t.Errorf("ending: %d", w.Code)
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"": 9500 * time.Millisecond, "x": 9500 * time.Millisecond, "-1s": 9500 * time.Millisecond,
		"1h":  9500 * time.Millisecond,
		"30s": 29500 * time.Millisecond, "500ms": 250 * time.Millisecond,
	} {
		if got := timeout(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
