// Package proxy is where traffic goes: it listens, finds the pool of a request by
// its routes, picks a backend, and carries the request there and the answer back,
// trying other backends where that is safe.
//
// It decides nothing about what is true. Routes, pools, admin states and agreed
// health come in with the view; what this node alone has found (a backend that it
// cannot reach, the opinion of its own probes) comes in by calls and is forgotten
// when the backend goes or moves.
//
// How a request is read, sent and answered is the matter of package http1: handler.go
// is what it asks. forward.go and exchange.go are the attempts at backends; routes,
// pools, picking and the retry budget know of neither.
//
// Invariants: a request reads one immutable table and takes no lock on its way. A
// request that may have reached a backend is sent to another only if its method is
// idempotent, all of its body is still there and nothing was sent to the client.
package proxy
