package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"lbnode/cluster"
	"lbnode/state"
)

// Problem is an error as the API tells it, in the form of RFC 9457.
type Problem struct {
	// Type is always "about:blank": Status says all there is to the kind.
	Type string `json:"type"`
	// Title is the text of Status, but for 504, whose text says less than is known.
	Title string `json:"title"`
	// Status is the HTTP status code.
	Status int `json:"status"`
	// Detail says what is wrong, where and why.
	Detail string `json:"detail"`
	// Instance is the path that was asked for.
	Instance string `json:"instance"`
	// Field is the JSON name of the value at fault, empty if it is none.
	Field string `json:"field,omitempty"`
	// Hint says what to do next, empty if there is nothing to add.
	Hint string `json:"hint,omitempty"`
}

// Error implements error.
func (p *Problem) Error() string {
	if p.Hint == "" {
		return p.Detail
	}
	return p.Detail + "; " + p.Hint
}

// Is makes a [cluster.ErrUnknownOutcome] of the problem that tells of one.
func (p *Problem) Is(target error) bool {
	return p.Status == http.StatusGatewayTimeout && target == cluster.ErrUnknownOutcome
}

const (
	unknownTitle = "Outcome Unknown"
	unknownHint  = "read it to see whether it has (such as lbnode backend ls), or repeat it with the same Idempotency-Key: then it takes effect once"
)

// problemOf maps an error to what the API answers. It is the only place that
// turns errors into statuses.
func problemOf(err error) *Problem {
	p := &Problem{Type: "about:blank", Detail: err.Error()}
	var given *Problem
	var failure *state.Error
	switch {
	case errors.As(err, &given):
		*p = *given
		p.Type = "about:blank"
	case errors.As(err, &failure):
		p.Status, p.Field, p.Detail = statusOf(failure.Code), failure.Field, failure.Error()
	case errors.Is(err, cluster.ErrNoLeader):
		p.Status, p.Hint = http.StatusServiceUnavailable, "it may be repeated; this node goes on serving its last view; GET /cluster shows which nodes are missing"
	case errors.Is(err, cluster.ErrUnknownOutcome):
		p.Status, p.Hint = http.StatusGatewayTimeout, unknownHint
	case errors.Is(err, cluster.ErrHeldBack):
		p.Status, p.Hint = http.StatusConflict, "upgrade the nodes that are named, then repeat it"
	case errors.Is(err, cluster.ErrNeeded):
		p.Status, p.Hint = http.StatusConflict, "nothing has changed; GET /cluster shows which nodes are missing"
	case errors.Is(err, cluster.ErrAlive):
		p.Status = http.StatusConflict
	case errors.Is(err, cluster.ErrNoMember):
		p.Status, p.Hint = http.StatusNotFound, "lbnode raft peers lists them"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		p.Status, p.Hint = http.StatusGatewayTimeout, unknownHint
		p.Detail = "the change may have happened: the cluster did not confirm it in time"
	default:
		p.Status = http.StatusInternalServerError
	}
	p.Title = http.StatusText(p.Status)
	if p.Status == http.StatusGatewayTimeout {
		p.Title = unknownTitle
	}
	return p
}

func statusOf(code state.Code) int {
	switch code {
	case state.Invalid:
		return http.StatusUnprocessableEntity
	case state.NotFound:
		return http.StatusNotFound
	case state.Exists, state.Conflict:
		return http.StatusConflict
	case state.Stale:
		return http.StatusPreconditionFailed
	}
	return http.StatusInternalServerError
}

// fail answers a request with what went wrong.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	p.Instance = r.URL.EscapedPath()
	switch p.Status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="lbnode"`)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "1")
	case http.StatusInternalServerError:
		s.log.Error("cannot answer an admin request", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	body, _ := json.Marshal(p) // strings and integers always marshal
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	w.Write(append(body, '\n')) // a client that has gone needs no answer
}

func badRequest(field, detail, hint string) *Problem {
	return &Problem{Status: http.StatusBadRequest, Field: field, Detail: detail, Hint: hint}
}
