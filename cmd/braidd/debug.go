package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"time"
)

// debugSocket is the name, in the directory of the CNI plugin's state, of the socket that has the
// agent's profiles: `curl --unix-socket /run/braid/debug.sock http://braid/debug/pprof/heap`.
const debugSocket = "debug.sock"

// debug serves the profiles of this process to root until ctx is done. Without them the agent does
// as well, so that they cannot be served is no error.
func (a *daemon) debug(ctx context.Context) error {
	path := filepath.Join(*a.nodeState.Load(), debugSocket)
	listener, err := listenPrivate(ctx, path)
	if err != nil {
		a.log.WarnContext(ctx, "profiles are not served", "error", err)
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() }) //nolint:errcheck // it ends
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		a.log.WarnContext(ctx, "profiles are not served any more", "error", err)
	}
	return nil
}

// listenPrivate listens on a socket of that path that root alone may use. It takes the place of one
// that is there in one step. The one of another agent, which begins while this one ends, stays.
func listenPrivate(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make directory of a socket: %w", err)
	}
	fresh := path + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return nil, fmt.Errorf("remove socket: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", fresh)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if own, ok := listener.(*net.UnixListener); ok {
		own.SetUnlinkOnClose(false)
	}
	err = os.Chmod(fresh, 0o600)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("put socket in place: %w", err), listener.Close())
	}
	return listener, nil
}
