package proxy

import (
	"context"
	"net/http"
	"runtime/debug"
	"time"
)

// grace is how long a client has to take our last words, or to stop sending what
// nobody will read, before its connection is closed.
const grace = time.Second

// refusal is an answer that the proxy gives without asking a backend.
type refusal struct {
	code   int
	reason string // as Recorder.Reject has it
	text   string
}

var (
	badRequest = refusal{http.StatusBadRequest, "bad_request", "bad request"}
	bigHeader  = refusal{http.StatusRequestHeaderFieldsTooLarge, "bad_request", "too many header fields"}
	badMethod  = refusal{http.StatusMethodNotAllowed, "method", "method not allowed"}
	noView     = refusal{http.StatusServiceUnavailable, "no_view", "this node has no configuration yet"}
	noRoute    = refusal{http.StatusNotFound, "no_route", "no route for this host and path"}
	noBackend  = refusal{http.StatusServiceUnavailable, "no_backend", "no backend is available"}
)

// serve answers one client request.
func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	p.active.Add(1)
	defer p.active.Add(-1)
	p.meter.count(began)
	defer p.reportPanic()
	out := &response{ResponseWriter: w}
	if hasBody(r) && !r.ProtoAtLeast(1, 1) {
		// A Transfer-Encoding beside the length was passed over, so that someone on
		// the way may see the next request begin elsewhere.
		out.Header().Set("Connection", "close")
	}
	name := ""
	defer func() {
		p.recorder.Request(name, methodLabel(r.Method), protocolLabel(r), out.code, time.Since(began))
		if out.hijacked {
			p.recorder.Connections(listenerHTTP, -1)
		}
	}()
	if r.Method == http.MethodOptions && r.RequestURI == "*" {
		out.WriteHeader(http.StatusOK)
		return
	}
	pool, refused := p.admit(r)
	if refused != nil {
		p.reject(out, r, refused)
		return
	}
	name = pool.spec.Name
	p.carry(out, r, pool)
}

// reportPanic logs a panic that is a fault of this program; the server, whose own
// log is for debugging only, closes the connection.
func (p *Proxy) reportPanic() {
	fault := recover()
	if fault == nil {
		return
	}
	if fault != http.ErrAbortHandler {
		p.log.Error("panic while serving a request", "panic", fault, "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
}

// admit finds the pool for a request, or why there is none.
func (p *Proxy) admit(r *http.Request) (*pool, *refusal) {
	if r.Method == http.MethodConnect {
		return nil, &badMethod
	}
	if malformed(r) {
		return nil, &badRequest
	}
	if fields(r.Header) > maxFields {
		return nil, &bigHeader
	}
	table := p.table.Load()
	if table == nil {
		return nil, &noView
	}
	if pool := table.route(r.Host, r.URL.Path); pool != nil {
		return pool, nil
	}
	if len(table.hosts) == 0 {
		return nil, &noBackend // nothing is set up yet: that is no fault of the request
	}
	return nil, &noRoute
}

func (p *Proxy) reject(out *response, r *http.Request, why *refusal) {
	p.recorder.Reject(why.reason)
	if why == &badMethod {
		out.Header().Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE")
	}
	if hasBody(r) {
		http.NewResponseController(out.ResponseWriter).SetReadDeadline(time.Now().Add(grace))
	}
	out.refuse(why.code, why.text)
}

// carry sends a request through its pool.
func (p *Proxy) carry(out *response, r *http.Request, pool *pool) {
	e := &exchange{pool: pool, recorder: p.recorder, method: r.Method, out: out}
	if e.first() == nil {
		p.reject(out, r, &noBackend)
		return
	}
	defer e.end()
	e.ctx, e.cancel = context.WithCancelCause(r.Context())
	defer e.cancel(nil)
	e.watch = newWatchdog(time.Duration(pool.spec.Timeouts.Request), e.giveUp)
	out.watch = e.watch
	if hasBody(r) {
		e.body = &requestBody{watch: e.watch, source: r.Body}
		out.body = e.body
	}
	defer e.release()
	p.engine.forward(e, r)
}

// giveUp ends an exchange that makes no progress. What the client owes is not
// waited for any more, and it gets little time to take what is still sent to it.
func (e *exchange) giveUp() {
	cause := errBackendStalled
	if e.body.waiting() {
		cause = errClientStalled
	}
	e.cancel(cause)
	conn := http.NewResponseController(e.out.ResponseWriter)
	conn.SetWriteDeadline(time.Now().Add(grace))
	if !e.body.done() {
		conn.SetReadDeadline(time.Now())
	}
}

// release ends what an exchange does to the client's connection, before the
// server goes on with it.
func (e *exchange) release() {
	e.watch.stop()
	if e.body.done() {
		return
	}
	conn := http.NewResponseController(e.out.ResponseWriter)
	conn.SetReadDeadline(time.Now()) // ends a Read that the engine may have left behind
	e.body.take()
	conn.SetReadDeadline(time.Now().Add(grace))
}

func hasBody(r *http.Request) bool { return r.ContentLength != 0 }

// methodLabel keeps the number of values small: a client may invent methods.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	default:
		return "OTHER"
	}
}

func protocolLabel(r *http.Request) string {
	if r.ProtoAtLeast(1, 1) {
		return "HTTP/1.1"
	}
	return "HTTP/1.0"
}
