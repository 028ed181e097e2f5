package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"lbnode/state"
)

func notFound(kind, name string) *state.Error {
	return &state.Error{Code: state.NotFound, Field: kind, Message: fmt.Sprintf("there is no %s %q", kind, name)}
}

// poolOf returns the pool that r's path names.
func poolOf(view *state.View, r *http.Request) (*state.Pool, error) {
	name := r.PathValue("pool")
	if pool := view.Pool(name); pool != nil {
		return pool, nil
	}
	return nil, notFound("pool", name)
}

// backendOf returns the backend of that name in the pool that r's path names.
func backendOf(view *state.View, r *http.Request, name string) (*state.Backend, error) {
	pool, err := poolOf(view, r)
	if err != nil {
		return nil, err
	}
	if b := pool.Backend(name); b != nil {
		return b, nil
	}
	return nil, notFound("backend", name)
}

func (s *Server) getPools(w http.ResponseWriter, r *http.Request) error {
	view := s.cluster.View()
	pools := make([]Pool, len(view.Pools))
	for i, p := range view.Pools {
		pools[i] = newPool(p, s.observed)
	}
	return writeView(w, r, http.StatusOK, view, pools)
}

func (s *Server) getPool(w http.ResponseWriter, r *http.Request) error {
	return s.answerPool(w, r, http.StatusOK, r.PathValue("pool"))
}

// answerPool shows a pool as it is now; after a write that is at least what the
// write made of it.
func (s *Server) answerPool(w http.ResponseWriter, r *http.Request, status int, name string) error {
	view := s.cluster.View()
	pool := view.Pool(name)
	if pool == nil {
		return notFound("pool", name)
	}
	if status == http.StatusCreated {
		w.Header().Set("Location", poolPath(name))
	}
	return writeView(w, r, status, view, newPool(pool, s.observed))
}

func (s *Server) createPool(w http.ResponseWriter, r *http.Request) error {
	var spec PoolSpec
	if err := readBody(w, r, &spec); err != nil {
		return err
	}
	if err := spec.Settings.Effect(state.DefaultSettings()); err != nil {
		return err
	}
	pool, err := spec.pool()
	if err != nil {
		return err
	}
	if err := s.propose(r, &state.CreatePool{Pool: pool}); err != nil {
		return err
	}
	return s.answerPool(w, r, http.StatusCreated, pool.Name)
}

func (s *Server) updatePool(w http.ResponseWriter, r *http.Request) error {
	var spec PoolSpec
	if err := readBody(w, r, &spec); err != nil {
		return err
	}
	name := r.PathValue("pool")
	if err := sameName(spec.Name, name); err != nil {
		return err
	}
	old, err := poolOf(s.cluster.View(), r)
	if err != nil {
		return err
	}
	if spec.Backends != nil && !sameBackends(spec.Backends, old.Backends) {
		return invalid("backends", "cannot be changed as a whole; change them one by one at %s/backends", poolPath(name))
	}
	if err := spec.Settings.Effect(old.Settings); err != nil {
		return err
	}
	if err := s.propose(r, &state.UpdatePool{Pool: state.Pool{Name: name, Settings: spec.Settings}}); err != nil {
		return err
	}
	return s.answerPool(w, r, http.StatusOK, name)
}

// sameBackends says whether the specs are those of the backends, in their order, so that
// nothing is to be changed.
func sameBackends(specs []BackendSpec, backends []*state.Backend) bool {
	return slices.EqualFunc(specs, backends, func(spec BackendSpec, b *state.Backend) bool {
		patch, err := spec.patch()
		return err == nil && spec.Name == b.Name && b.Keeps(patch)
	})
}

// sameName refuses a change of name: traffic, metrics and routes hang on it.
func sameName(given, name string) error {
	if given != "" && given != name {
		return invalid("name", "cannot be changed from %q to %q", name, given)
	}
	return nil
}

func (s *Server) deletePool(w http.ResponseWriter, r *http.Request) error {
	return s.remove(w, r, &state.DeletePool{Name: r.PathValue("pool")})
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request, op state.Op) error {
	if err := s.propose(r, op); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) getBackends(w http.ResponseWriter, r *http.Request) error {
	view := s.cluster.View()
	pool, err := poolOf(view, r)
	if err != nil {
		return err
	}
	return writeView(w, r, http.StatusOK, view, newBackends(pool, s.observed))
}

func (s *Server) getBackend(w http.ResponseWriter, r *http.Request) error {
	return s.answerBackend(w, r, http.StatusOK, r.PathValue("backend"))
}

func (s *Server) answerBackend(w http.ResponseWriter, r *http.Request, status int, name string) error {
	view := s.cluster.View()
	b, err := backendOf(view, r, name)
	if err != nil {
		return err
	}
	if status == http.StatusCreated {
		w.Header().Set("Location", poolPath(r.PathValue("pool"))+"/backends/"+url.PathEscape(name))
	}
	return writeView(w, r, status, view, newBackend(b, s.observed))
}

func (s *Server) addBackend(w http.ResponseWriter, r *http.Request) error {
	var spec BackendSpec
	if err := readBody(w, r, &spec); err != nil {
		return err
	}
	b, failure := spec.Backend()
	if failure != nil {
		return failure
	}
	if err := s.propose(r, &state.AddBackend{Pool: r.PathValue("pool"), Backend: b}); err != nil {
		return err
	}
	return s.answerBackend(w, r, http.StatusCreated, b.Name)
}

func (s *Server) updateBackend(w http.ResponseWriter, r *http.Request) error {
	var spec BackendSpec
	if err := readBody(w, r, &spec); err != nil {
		return err
	}
	name := r.PathValue("backend")
	if err := sameName(spec.Name, name); err != nil {
		return err
	}
	patch, failure := spec.patch()
	if failure != nil {
		return failure
	}
	if err := s.propose(r, &state.UpdateBackend{
		Pool: r.PathValue("pool"), Name: name, Patch: patch, Primary: spec.Backup != nil && !*spec.Backup,
	}); err != nil {
		return err
	}
	return s.answerBackend(w, r, http.StatusOK, name)
}

func (s *Server) removeBackend(w http.ResponseWriter, r *http.Request) error {
	return s.remove(w, r, &state.RemoveBackend{Pool: r.PathValue("pool"), Name: r.PathValue("backend")})
}

func (s *Server) getRoutes(w http.ResponseWriter, r *http.Request) error {
	view := s.cluster.View()
	routes := make([]Route, len(view.Routes))
	for i, route := range view.Routes {
		routes[i] = Route(route)
	}
	return writeView(w, r, http.StatusOK, view, routes)
}

// putRoute makes a route, or sends an existing one to another pool.
func (s *Server) putRoute(w http.ResponseWriter, r *http.Request) error {
	var route Route
	if err := readBody(w, r, &route); err != nil {
		return err
	}
	route.Host = plainHost(route.Host)
	if route.Path == "" {
		route.Path = "/"
	}
	status := http.StatusCreated
	if slices.ContainsFunc(s.cluster.View().Routes, func(old state.Route) bool {
		return old.Host == route.Host && old.Path == route.Path
	}) {
		status = http.StatusOK
	}
	if err := s.propose(r, &state.PutRoute{Route: state.Route(route)}); err != nil {
		return err
	}
	w.Header().Set("Location", "/v1/routes")
	return writeView(w, r, status, s.cluster.View(), route)
}

func (s *Server) removeRoute(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	if !query.Has("host") && !query.Has("path") {
		return badRequest("", "which route? give ?host= and ?path=", "without a host it is the route for any host; without a path it is /")
	}
	host := plainHost(query.Get("host"))
	return s.remove(w, r, &state.RemoveRoute{Host: host, Path: query.Get("path")})
}

func poolPath(name string) string { return "/v1/pools/" + url.PathEscape(name) }
