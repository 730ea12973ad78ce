// Package webhook serves admission reviews to the API server: HTTPS, JSON, one review a request.
//
// Contract: it decides nothing. A request that is no review is answered with a status of HTTP, a
// review always with a response for its uid, before the API server gives up on it. What it serves
// is open to everybody who reaches the port, and tells nobody more than what an API server would.
package webhook

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Path is where reviews are served.
const Path = "/review"

const (
	// maxBody bounds a request, in bytes: etcd takes objects of 1.5 MB, and an update has two.
	maxBody = 8 << 20
	// defaultTimeout is the timeout of API servers; margin is left of theirs for the answer.
	defaultTimeout, margin = 10 * time.Second, 500 * time.Millisecond
	// drain is how long a server that ends goes on while the endpoints of its Service change.
	drain = 5 * time.Second
)

// Reviewer judges requests.
type Reviewer interface {
	// Review returns the response, and for the metrics the class of a denial; empty for none.
	Review(
		ctx context.Context, req *admissionv1.AdmissionRequest,
	) (response *admissionv1.AdmissionResponse, reason string)
}

// Server serves reviews.
type Server struct {
	Reviewer Reviewer
	// Address is what it listens at.
	Address string
	// Certificate returns the one to serve with.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Ready reports whether it may be sent requests.
	Ready func() bool
	// Kinds are the kinds that the metrics tell apart.
	Kinds []string
	Log   *slog.Logger

	ending    chan struct{}
	decisions *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
}

// Run serves until ctx is done, and then for a moment longer.
func (s *Server) Run(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.Address)
	if err != nil {
		return fmt.Errorf("serve admission: %w", err)
	}
	s.ending = make(chan struct{})
	server := s.server()
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(listener, "", "") }()
	s.Log.InfoContext(ctx, "serving admission", "address", listener.Addr().String())
	select {
	case err := <-ended:
		return fmt.Errorf("serve admission: %w", err)
	case <-ctx.Done():
	}
	close(s.ending)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain+defaultTimeout)
	defer cancel()
	select {
	case <-time.After(drain):
	case err := <-ended:
		return fmt.Errorf("serve admission: %w", err)
	}
	if err := server.Shutdown(last); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("end admission: %w", err)
	}
	return nil
}

// server returns the server, with bounds for clients that are slow or silent.
func (s *Server) server() *http.Server {
	return &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: defaultTimeout, ReadTimeout: 3 * defaultTimeout,
		IdleTimeout: 5 * time.Minute,
		TLSConfig:   &tls.Config{GetCertificate: s.Certificate, MinVersion: tls.VersionTLS12},
		// probes, and who does not trust us
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
}

// handler serves reviews, readiness and metrics, which have a registry of their own.
func (s *Server) handler() http.Handler {
	registry := prometheus.NewRegistry()
	s.decisions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "braid_admission_reviews_total",
		Help: "Objects that were judged, by kind and what became of them (allowed, denied, unknown), " +
			"with the class of a denial.",
	}, []string{"kind", "result", "reason"})
	s.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "braid_admission_duration_seconds", Help: "How long judging took, by kind.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"kind"})
	registry.MustRegister(s.decisions, s.seconds, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+Path, s.review)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}

// readyz is for the kubelet: not ready takes the pod from the endpoints of the webhook.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	select {
	case <-s.ending:
		http.Error(w, "ending", http.StatusServiceUnavailable)
		return
	default:
	}
	if !s.Ready() {
		http.Error(w, "not ready: NADs and namespaces are not known yet, or there is no certificate",
			http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok") //nolint:errcheck // the client is gone
}

// review answers a request of the API server, within the time that the server waits.
func (s *Server) review(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "the request cannot be read, or is too large", http.StatusRequestEntityTooLarge)
		return
	}
	review, ok := parseReview(body)
	if !ok {
		http.Error(w, "the request is no AdmissionReview of admission.k8s.io/v1", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout(r.URL.Query().Get("timeout")))
	defer cancel()
	request := review.Request
	response, reason := s.Reviewer.Review(ctx, request)
	if !response.Allowed {
		s.logDenied(ctx, request, reason, response.Result.Message)
	}
	kind := s.label(request.Kind.Kind)
	s.decisions.WithLabelValues(kind, resultOf(response), reason).Inc()
	s.seconds.WithLabelValues(kind).Observe(time.Since(started).Seconds())
	answer := admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: review.APIVersion, Kind: "AdmissionReview"},
		Response: response,
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(&answer) //nolint:errcheck // the client is gone
}

// logDenied logs what was not admitted, and whose it is.
func (s *Server) logDenied(
	ctx context.Context, request *admissionv1.AdmissionRequest, reason, message string,
) {
	s.Log.InfoContext(ctx, "not admitted",
		"kind", request.Kind.Kind, "object", request.Namespace+"/"+request.Name,
		"user", request.UserInfo.Username, "reason", reason, "message", message,
		"dryRun", request.DryRun != nil && *request.DryRun)
}

// parseReview reads a request of the API server. ok is false for what is none.
func parseReview(body []byte) (review *admissionv1.AdmissionReview, ok bool) {
	review = &admissionv1.AdmissionReview{}
	err := json.Unmarshal(body, review)
	return review, err == nil && review.Request != nil &&
		review.APIVersion == admissionv1.SchemeGroupVersion.String()
}

// resultOf returns what became of an object, as the metrics have it.
func resultOf(response *admissionv1.AdmissionResponse) string {
	switch {
	case response.Allowed:
		return "allowed"
	case response.Result != nil && response.Result.Code == http.StatusServiceUnavailable:
		return "unknown"
	}
	return "denied"
}

// label returns a kind in the metrics: anybody may ask about any.
func (s *Server) label(kind string) string {
	if slices.Contains(s.Kinds, kind) {
		return kind
	}
	return "other"
}

// timeout returns how long a review may take, by what the API server says of its own patience.
func timeout(text string) time.Duration {
	patience, err := time.ParseDuration(text)
	if err != nil || patience <= 0 || patience > 3*defaultTimeout {
		patience = defaultTimeout
	}
	return max(patience-margin, patience/2)
}
