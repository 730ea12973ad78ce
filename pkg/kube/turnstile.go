package kube

import (
	"context"
	"net/http/httptrace"
	"sync"
)

// turnstile lets the requests on a new client pass one by one until there is a connection. Each of
// them would make one, and only one is used.
type turnstile struct {
	turn chan struct{} // full while a request is on its way
	open chan struct{} // closed as soon as there is a connection
	once sync.Once
}

func newTurnstile() *turnstile {
	return &turnstile{turn: make(chan struct{}, 1), open: make(chan struct{})}
}

// pass waits until a request may be sent, with the context that it returns. leave is to be called
// when that is done. err is that of ctx.
func (t *turnstile) pass(ctx context.Context) (traced context.Context, leave func(), err error) {
	select {
	case <-t.open:
		return ctx, func() {}, nil
	default:
	}
	select {
	case <-t.open:
		return ctx, func() {}, nil
	case <-ctx.Done():
		return ctx, nil, ctx.Err()
	case t.turn <- struct{}{}:
	}
	connected := func(httptrace.GotConnInfo) { t.once.Do(func() { close(t.open) }) }
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: connected}),
		func() { <-t.turn }, nil
}
