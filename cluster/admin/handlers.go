package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lbnode/cluster"
	"lbnode/state"
)

func (s *Server) getCluster(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), statusTimeout)
	defer cancel()
	view := newClusterView(s.cluster.Status(ctx), s.cluster.View(), time.Now())
	w.Header().Set("Vary", "Accept")
	if !prefersText(r.Header.Get("Accept")) {
		return writeJSON(w, r, http.StatusOK, view)
	}
	var text bytes.Buffer
	if err := view.WriteTable(&text); err != nil {
		return fmt.Errorf("cannot write the table: %w", err)
	}
	return writeText(w, http.StatusOK, text.String())
}

// prefersText says whether an Accept header asks for text/plain by name, and for
// JSON not as much.
func prefersText(accept string) bool {
	var text, jsonQ float64
	for part := range strings.SplitSeq(accept, ",") {
		kind, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if given, ok := params["q"]; ok {
			q, _ = strconv.ParseFloat(given, 64)
		}
		switch kind {
		case "text/plain":
			text = q
		case "application/json":
			jsonQ = q
		}
	}
	return text > jsonQ
}

func (s *Server) getLive(w http.ResponseWriter, r *http.Request) error {
	if r.URL.Query().Has("verbose") {
		return writeText(w, http.StatusOK, "ok\nlbnode "+s.version+"\n")
	}
	return writeText(w, http.StatusOK, "ok\n")
}

func (s *Server) getReady(w http.ResponseWriter, r *http.Request) error {
	err := s.ready()
	switch {
	case err != nil:
		return writeText(w, http.StatusServiceUnavailable, "not ready: "+err.Error()+"\n")
	case r.URL.Query().Has("verbose"):
		view := s.cluster.View()
		return writeText(w, http.StatusOK, fmt.Sprintf("ok\nview %d %s\npools %d\nroutes %d\n",
			view.Index, view.Digest(), len(view.Pools), len(view.Routes)))
	}
	return writeText(w, http.StatusOK, "ok\n")
}

func (s *Server) getMetrics(w http.ResponseWriter, r *http.Request) error {
	s.metrics.ServeHTTP(w, r)
	return nil
}

// leave is answered once the node has left. A client that hangs up does not stop
// it half-way.
func (s *Server) leave(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), leaveTimeout)
	defer cancel()
	s.log.Info("leaving the cluster on request", "client", r.RemoteAddr)
	if err := s.cluster.Leave(ctx); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// expel is answered once the dead node is no member of Raft any more.
func (s *Server) expel(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), proposeTimeout)
	defer cancel()
	peer := r.PathValue("peer")
	if err := s.cluster.Expel(ctx, peer); err != nil {
		return err
	}
	s.log.Info("removed a dead node on request", "peer", peer, "client", r.RemoteAddr)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// propose commits op, on the condition that r's If-Match names. If r repeats a
// request, it returns what came of the first.
func (s *Server) propose(r *http.Request, op state.Op) error {
	ifIndex, err := ifMatch(r)
	if err != nil {
		return err
	}
	id, err := requestID(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), proposeTimeout)
	defer cancel()
	result, err := s.cluster.Propose(ctx, cluster.Write{Op: op, IfIndex: ifIndex, RequestID: id})
	switch {
	case errors.Is(err, cluster.ErrNoLeader):
		return fmt.Errorf("the change has not happened: %w", err)
	case errors.Is(err, cluster.ErrUnknownOutcome):
		return fmt.Errorf("the change may have happened: %w", err)
	case err != nil:
		return fmt.Errorf("cannot change the cluster: %w", err)
	}
	if result.Err != nil {
		return result.Err
	}
	s.log.Info("changed on request", "method", r.Method, "path", r.URL.Path, "index", result.Index, "client", r.RemoteAddr)
	return nil
}

// ifMatch gives the view index that a write is conditional on, 0 for none.
func ifMatch(r *http.Request) (uint64, error) {
	tag := ifMatchTag(r)
	if tag == "" || tag == "*" {
		return 0, nil
	}
	digits, opened := strings.CutPrefix(tag, `"`)
	digits, closed := strings.CutSuffix(digits, `"`)
	index, err := strconv.ParseUint(digits, 10, 64)
	if !opened || !closed || err != nil {
		return 0, badRequest("If-Match", "If-Match holds "+clip([]byte(tag))+`, not one ETag of this API such as "812"`,
			"take the ETag of a GET, quotes included")
	}
	if index == 0 { // of the empty view, which no write can be made to
		return 0, &state.Error{Code: state.Stale, Message: "the view is no longer at index 0: read it again and repeat the change"}
	}
	return index, nil
}

func ifMatchTag(r *http.Request) string {
	return strings.TrimSpace(strings.Join(r.Header.Values("If-Match"), ", "))
}

// writeView answers with part of the view.
func writeView(w http.ResponseWriter, r *http.Request, status int, view *state.View, body any) error {
	w.Header().Set("ETag", fmt.Sprintf(`"%d"`, view.Index))
	return writeJSON(w, r, status, body)
}

func writeJSON(w http.ResponseWriter, r *http.Request, status int, body any) error {
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	if r.URL.Query().Has("pretty") {
		encoder.SetIndent("", "  ")
	}
	if err := encoder.Encode(body); err != nil {
		return fmt.Errorf("cannot encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(buf.Bytes()) // a client that has gone needs no answer
	return nil
}

func writeText(w http.ResponseWriter, status int, text string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	w.Write([]byte(text)) // a client that has gone needs no answer
	return nil
}
