package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// guard lets only those requests through to next that may be answered.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if err := s.admit(r); err != nil {
			s.fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) admit(r *http.Request) error {
	if (r.URL.Path == "/livez" || r.URL.Path == "/readyz") && !r.URL.Query().Has("verbose") {
		return nil // for probes, which have no token and are told nothing
	}
	if err := s.checkHost(r); err != nil {
		return err
	}
	if err := s.origins.Check(r); err != nil {
		return &Problem{
			Status: http.StatusForbidden,
			Detail: "a page of another origin may not change this cluster: " + err.Error(),
			Hint:   "write from the command line, or without an Origin header",
		}
	}
	if err := s.checkToken(r); err != nil {
		return err
	}
	if !s.strangers.Begin(r.Context()) {
		return &Problem{
			Status: http.StatusServiceUnavailable,
			Detail: "too many requests are under way on this node",
			Hint:   "try again, or ask another node",
		}
	}
	return nil
}

// checkHost keeps web pages out of an API that trusts whoever can reach
// loopback: a page whose name was made to resolve to 127.0.0.1 still sends that
// name as the host.
func (s *Server) checkHost(r *http.Request) error {
	if !s.loopback || s.token != "" || r.Host == "" {
		return nil
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err == nil || strings.EqualFold(host, "localhost") {
		return nil
	}
	return &Problem{
		Status: http.StatusForbidden,
		Detail: fmt.Sprintf("the host %q is not this machine's loopback", clip([]byte(host))),
		Hint:   "use localhost or an IP address, or set a token with -admin-token-file",
	}
}

func (s *Server) checkToken(r *http.Request) error {
	if s.token == "" {
		return nil
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	// Digests are of one length, so that the time taken tells nothing of the token.
	want, got := sha256.Sum256([]byte(s.token)), sha256.Sum256([]byte(strings.TrimSpace(given)))
	if strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(want[:], got[:]) == 1 {
		return nil
	}
	return &Problem{
		Status: http.StatusUnauthorized,
		Detail: "the admin token is missing or wrong",
		Hint:   "send the header Authorization: Bearer TOKEN; on the command line set -admin-token-file or LBNODE_ADMIN_TOKEN_FILE",
	}
}
