package admin

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// endpoint is one thing that can be asked for. Its handler writes the whole
// answer, or writes nothing and returns why.
type endpoint struct {
	method, path string
	query        string // the query keys that it knows, separated by spaces
	handle       func(http.ResponseWriter, *http.Request) error
}

func (s *Server) endpoints() []endpoint {
	return []endpoint{
		{"GET", "/cluster", "pretty", s.getCluster},
		{"GET", "/livez", "verbose", s.getLive},
		{"GET", "/readyz", "verbose", s.getReady},
		{"GET", "/metrics", "", s.getMetrics},

		{"GET", "/v1/pools", "pretty", s.getPools},
		{"POST", "/v1/pools", "pretty", s.createPool},
		{"GET", "/v1/pools/{pool}", "pretty", s.getPool},
		{"PATCH", "/v1/pools/{pool}", "pretty", s.updatePool},
		{"DELETE", "/v1/pools/{pool}", "", s.deletePool},

		{"GET", "/v1/pools/{pool}/backends", "pretty", s.getBackends},
		{"POST", "/v1/pools/{pool}/backends", "pretty", s.addBackend},
		{"GET", "/v1/pools/{pool}/backends/{backend}", "pretty", s.getBackend},
		{"PATCH", "/v1/pools/{pool}/backends/{backend}", "pretty", s.updateBackend},
		{"DELETE", "/v1/pools/{pool}/backends/{backend}", "", s.removeBackend},

		{"GET", "/v1/routes", "pretty", s.getRoutes},
		{"POST", "/v1/routes", "pretty", s.putRoute},
		{"DELETE", "/v1/routes", "host path", s.removeRoute},

		{"GET", snapshotPath, "stale", s.getSnapshot},
		{"POST", snapshotPath, "pretty", s.restoreSnapshot},

		{"POST", "/v1/leave", "", s.leave},
		{"DELETE", "/v1/raft/peers/{peer}", "", s.expel},
	}
}

// mux serves the endpoints by path, so that a wrong method can be told from a
// wrong path.
func (s *Server) mux() http.Handler {
	paths := map[string]map[string]endpoint{}
	for _, e := range s.endpoints() {
		if paths[e.path] == nil {
			paths[e.path] = map[string]endpoint{}
		}
		paths[e.path][e.method] = e
	}
	mux := http.NewServeMux()
	for path, methods := range paths {
		mux.Handle(path, s.dispatch(methods))
	}
	mux.HandleFunc("/", s.unknownPath)
	return mux
}

func (s *Server) dispatch(methods map[string]endpoint) http.Handler {
	allow := slices.Sorted(maps.Keys(methods))
	if _, ok := methods["GET"]; ok {
		methods["HEAD"] = methods["GET"]
		allow = append(allow, "HEAD")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e, ok := methods[r.Method]
		if !ok {
			w.Header().Set("Allow", strings.Join(allow, ", "))
			s.fail(w, r, &Problem{
				Status: http.StatusMethodNotAllowed,
				Detail: fmt.Sprintf("%s does not take %s", r.URL.Path, clip([]byte(r.Method))),
				Hint:   "it takes " + strings.Join(allow, ", "),
			})
			return
		}
		if err := s.answer(&e, w, r); err != nil {
			s.fail(w, r, err)
		}
	})
}

// answer handles r once it is known to make sense and the view is as new as it
// asks for.
func (s *Server) answer(e *endpoint, w http.ResponseWriter, r *http.Request) error {
	err := e.checkQuery(r)
	switch {
	case err != nil:
	case e.readsView():
		err = s.awaitView(w, r)
	case e.method != "GET":
		_, err = idempotencyKey(r)
	}
	if err != nil {
		return err
	}
	return e.handle(w, r)
}

// readsView says whether the endpoint answers from the view.
func (e *endpoint) readsView() bool {
	return e.method == "GET" && strings.HasPrefix(e.path, "/v1/")
}

func (s *Server) unknownPath(w http.ResponseWriter, r *http.Request) {
	s.fail(w, r, &Problem{
		Status: http.StatusNotFound,
		Detail: "there is nothing at " + clip([]byte(r.URL.EscapedPath())),
		Hint:   "try /cluster, /v1/pools, /v1/routes, /livez, /readyz or /metrics",
	})
}

// checkQuery refuses a key that the endpoint does not know: to pass over it could
// change more than was asked for, or read less. Probes and /cluster, which people
// and monitors call in their own ways, take any.
func (e *endpoint) checkQuery(r *http.Request) error {
	if e.method == "GET" && !e.readsView() {
		return nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return badRequest("", "cannot read the query: "+err.Error(), "")
	}
	known := strings.Fields(e.query)
	if e.readsView() {
		known = append(known, freshnessKeys()...)
	}
	for _, key := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains(known, key) {
			return badRequest(clip([]byte(key)), fmt.Sprintf("unknown query key %q", clip([]byte(key))), hintAt(key, known))
		}
		if len(query[key]) > 1 {
			return badRequest(key, fmt.Sprintf("the query key %q is given twice", key), "give it once")
		}
	}
	return nil
}

// hintAt says what an unknown key may have been meant to be.
func hintAt(key string, known []string) string {
	switch near := Nearest(key, known); {
	case near != "":
		return fmt.Sprintf("did you mean %q?", near)
	case len(known) == 0:
		return "there are none here"
	}
	return "known are " + strings.Join(known, ", ")
}
