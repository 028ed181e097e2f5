package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	// defaultWait and maxWait are how long a read waits for a newer view.
	defaultWait = 5 * time.Minute
	maxWait     = 10 * time.Minute
)

// freshness is how new a view a read asks for.
type freshness struct {
	// consistent asks for all that was answered anywhere before the read.
	consistent bool
	// blocks asks for a view newer than index, or the current one after wait.
	blocks bool
	index  uint64
	wait   time.Duration
}

// freshnessKeys are the query keys that every read of the view knows.
func freshnessKeys() []string { return []string{"consistent", "index", "wait"} }

// askedFreshness reads a query whose keys are known to be there once at most.
func askedFreshness(query url.Values) (f freshness, err error) {
	if f.consistent, err = askedConsistent(query); err != nil {
		return f, err
	}
	if f.wait, err = askedWait(query); err != nil || !query.Has("index") {
		return f, err
	}
	f.blocks = true
	if f.index, err = strconv.ParseUint(query.Get("index"), 10, 64); err != nil {
		return f, badRequest("index", fmt.Sprintf("index is %q, not the index of a view", clip([]byte(query.Get("index")))),
			"take the ETag of a GET, without its quotes")
	}
	return f, nil
}

func askedConsistent(query url.Values) (bool, error) {
	given := query.Get("consistent")
	if given == "" {
		return query.Has("consistent"), nil
	}
	consistent, err := strconv.ParseBool(given)
	if err != nil {
		return false, badRequest("consistent", fmt.Sprintf("consistent is %q, neither 1 nor 0", clip([]byte(given))), "write ?consistent=1")
	}
	return consistent, nil
}

func askedWait(query url.Values) (time.Duration, error) {
	if !query.Has("wait") {
		return defaultWait, nil
	}
	if !query.Has("index") {
		return 0, badRequest("wait", "wait is given without index", "say which view you have: ?index=812&wait=30s")
	}
	wait, err := time.ParseDuration(query.Get("wait"))
	if err != nil || wait < 0 || wait > maxWait {
		return 0, badRequest("wait", fmt.Sprintf("wait is %q, not a duration from 0s to 10m", clip([]byte(query.Get("wait")))), "write it like 30s or 5m")
	}
	return wait, nil
}

// awaitView returns when this node's view is as new as r asks for.
func (s *Server) awaitView(w http.ResponseWriter, r *http.Request) error {
	f, err := askedFreshness(r.URL.Query())
	if err != nil {
		return err
	}
	if f.consistent {
		if err := s.cluster.Barrier(r.Context()); err != nil {
			return fmt.Errorf("cannot read what the cluster agrees on now: %w", err)
		}
	}
	if f.blocks && s.cluster.View().Index <= f.index {
		return s.block(w, r, f)
	}
	return nil
}

// block waits for a view newer than f.index, for f.wait at most. It ends early
// when the client goes or the server shuts down.
func (s *Server) block(w http.ResponseWriter, r *http.Request, f freshness) error {
	select {
	case s.blocked <- struct{}{}:
		defer func() { <-s.blocked }()
	default:
		return &Problem{
			Status: http.StatusTooManyRequests,
			Detail: fmt.Sprintf("%d reads already wait for a newer view on this node", cap(s.blocked)),
			Hint:   "ask another node, or read without index",
		}
	}
	answerBy := time.Now().Add(f.wait + s.http.WriteTimeout)
	if err := http.NewResponseController(w).SetWriteDeadline(answerBy); err != nil {
		return fmt.Errorf("cannot let the connection wait: %w", err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), f.wait)
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	s.cluster.NextView(ctx, f.index)
	return nil
}
