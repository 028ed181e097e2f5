package proxy

import (
	"net/http"
	"time"

	"lbnode/proxy/http1"
)

// refusal is an answer that the proxy gives without asking a backend.
type refusal struct {
	code   int
	reason string // as Recorder.Reject has it
	text   string
}

// outcome is what a request came to that was refused at that time.
func (r *refusal) outcome(pool string, at time.Time) outcome {
	return outcome{pool: pool, ended: at, end: end(r.reason), reason: r.text}
}

var (
	badMethod = refusal{http.StatusMethodNotAllowed, "method", "method not allowed"}
	noView    = refusal{http.StatusServiceUnavailable, "no_view", "this node has no configuration yet"}
	noRoute   = refusal{http.StatusNotFound, "no_route", "no route for this host and path"}
	noBackend = refusal{http.StatusServiceUnavailable, "no_backend", "no backend is available"}
	looping   = refusal{http.StatusLoopDetected, "loop", "loop: this load balancer has sent the request to these backends before, and one of them has sent it back"}
)

// traffic is what the engine hands a Proxy.
type traffic Proxy

// Handle implements http1.Handler.
func (t *traffic) Handle(x *http1.Exchange) {
	p, began := (*Proxy)(t), time.Now()
	p.meter.count(began)
	o, method := outcome{ended: began, end: endOK}, methodLabel(x.Method())
	if x.Last() {
		x.Reply()
	} else if pool, refused := p.admit(x, method); refused != nil {
		p.reject(x, refused)
		o = refused.outcome("", began)
	} else if x.Via(pool.via) {
		p.reject(x, &looping)
		o = looping.outcome(pool.spec.Name, began)
		p.warn("refused requests that came back", pool, o.end, "", o.reason)
	} else {
		o = p.carry(x, pool, method, began)
	}
	if o.code = x.Status(); o.code == 0 {
		o.code = statusClientLeft
	}
	p.recorder.Request(o.pool, method, protocolLabel(x), o.code, o.ended.Sub(began))
	p.note(x, began, o)
}

// Refused implements http1.Handler.
func (t *traffic) Refused(x *http1.Exchange, why *http1.Fault) {
	t.recorder.Reject("bad_request")
	t.recorder.Request("", "OTHER", "HTTP/1.1", why.Status, 0)
	p := (*Proxy)(t)
	if n := p.refusals.Take(p.uptime()); n > 0 {
		p.log.Info("refused what is no request", "count", n, "last", string(x.Client()), "reason", reasonOf(why))
	}
	p.noteRefused(x, why)
}

// Rejected implements http1.Handler.
func (t *traffic) Rejected(why http1.Rejection) { t.recorder.Reject(string(why)) }

// Connections implements http1.Handler.
func (t *traffic) Connections(delta int) { t.recorder.Connections(listenerHTTP, delta) }

// admit finds the pool for a request, or why there is none.
func (p *Proxy) admit(x *http1.Exchange, method string) (*pool, *refusal) {
	if method == http.MethodConnect {
		return nil, &badMethod
	}
	table := p.table.Load()
	if table == nil {
		return nil, &noView
	}
	if pool := table.route(x.Host(), x.Path()); pool != nil {
		return pool, nil
	}
	if len(table.hosts) == 0 {
		return nil, &noBackend // nothing is set up yet: that is no fault of the request
	}
	return nil, &noRoute
}

func (p *Proxy) reject(x *http1.Exchange, why *refusal) {
	p.recorder.Reject(why.reason)
	x.Refuse(why.code, why.text)
}

// methodLabel keeps the number of values small: a client may invent methods.
func methodLabel(method []byte) string {
	switch string(method) {
	case http.MethodGet:
		return http.MethodGet
	case http.MethodHead:
		return http.MethodHead
	case http.MethodPost:
		return http.MethodPost
	case http.MethodPut:
		return http.MethodPut
	case http.MethodPatch:
		return http.MethodPatch
	case http.MethodDelete:
		return http.MethodDelete
	case http.MethodConnect:
		return http.MethodConnect
	case http.MethodOptions:
		return http.MethodOptions
	case http.MethodTrace:
		return http.MethodTrace
	}
	return "OTHER"
}

func protocolLabel(x *http1.Exchange) string {
	if x.Old() {
		return "HTTP/1.0"
	}
	return "HTTP/1.1"
}
