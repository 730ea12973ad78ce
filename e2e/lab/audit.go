package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

// AuditEntry is one finished request to the API server.
type AuditEntry struct {
	Verb        string // get, list, watch, create, update, patch, delete, deletecollection
	Group       string // API group of the resource; empty for the core group
	Resource    string // plural; empty for what is no resource (then see URI)
	Subresource string
	Namespace   string
	Name        string
	Code        int    // HTTP status
	UserAgent   string // tells clients of the same user apart
	URI         string
}

// auditEvent is the part of audit.k8s.io/v1 Event that is read.
type auditEvent struct {
	Verb       string `json:"verb"`
	RequestURI string `json:"requestURI"`
	UserAgent  string `json:"userAgent"`

	User struct {
		Username string `json:"username"`
	} `json:"user"`
	Object struct {
		Group       string `json:"apiGroup"`
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	Response struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// Requests returns the requests that a user has made since the API server's first start, in the
// order in which they were answered. A watch is among them once it has ended. The control plane's
// own users and kubelets are not recorded.
func (a *API) Requests(ctx context.Context, user string) ([]AuditEntry, error) {
	// The entry of a request is written after its answer, so the client may be here before it. A
	// request of our own, made later, marks how far to read.
	if err := a.auditBarrier(ctx); err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	events, err := a.readAudit()
	if err != nil {
		return nil, err
	}
	var entries []AuditEntry
	for _, e := range events {
		if e.User.Username != user {
			continue
		}
		entries = append(entries, AuditEntry{
			Verb: e.Verb, Group: e.Object.Group, Resource: e.Object.Resource,
			Subresource: e.Object.Subresource,
			Namespace:   e.Object.Namespace, Name: e.Object.Name, Code: e.Response.Code,
			UserAgent: e.UserAgent, URI: e.RequestURI,
		})
	}
	return entries, nil
}

// RequestsDuring returns the requests that a user made while fn ran.
func (a *API) RequestsDuring(
	ctx context.Context, user string, fn func() error,
) ([]AuditEntry, error) {
	before, err := a.Requests(ctx, user)
	if err != nil {
		return nil, err
	}
	if err := fn(); err != nil {
		return nil, err
	}
	after, err := a.Requests(ctx, user)
	if err != nil {
		return nil, err
	}
	return after[len(before):], nil
}

// auditBarrier makes a request that is like no other and waits until it is in the log.
func (a *API) auditBarrier(ctx context.Context) error {
	uri := fmt.Sprintf("/version?barrier=%d", time.Now().UnixNano())
	if _, err := a.get(ctx, uri); err != nil {
		return err
	}
	for {
		// Its entry is the last or near it; the whole log of a long test is not read over and over.
		if strings.Contains(tail(a.dir.file("audit.log"), 200), uri) {
			return nil
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

func (a *API) readAudit() ([]auditEvent, error) {
	f, err := os.Open(a.dir.file("audit.log"))
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	defer f.Close()
	var events []auditEvent
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return events, nil // the end, or a line that is being written
		}
		var e auditEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("read audit log: %w", err)
		}
		events = append(events, e)
	}
}

// get makes a GET request as the administrator and returns the HTTP status.
func (a *API) get(ctx context.Context, uri string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url()+uri, nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+a.users[UserAdmin].token)
	response, err := a.http.Do(request)
	if err != nil {
		return 0, err
	}
	response.Body.Close()
	return response.StatusCode, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
