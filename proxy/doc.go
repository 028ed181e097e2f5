// Package proxy is where traffic goes: it listens, finds the pool of a request by
// its routes, picks a backend, and carries the request there and the answer back,
// trying other backends where that is safe.
//
// It decides nothing about what is true. Routes, pools, admin states and agreed
// health come in with the view; what this node alone has found (a backend that it
// cannot reach, the opinion of its own probes) comes in by calls and is forgotten
// when the backend goes or moves.
//
// Only forward.go knows how a request is carried to a backend; server.go,
// handler.go and message.go deal with the client; strict.go says what is refused of
// either although the engine could read it. Routes, pools, picking, the retry budget
// and timeouts know of neither.
//
// Invariants: a request reads one immutable table and takes no lock on its way. A
// request that may have reached a backend is sent to another only if its method is
// idempotent, none of its body was read and nothing was sent to the client. An
// answer that was cut short never ends cleanly.
package proxy
