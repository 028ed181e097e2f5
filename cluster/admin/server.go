package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"lbnode/cluster"
	"lbnode/cluster/strangers"
	"lbnode/state"
)

const (
	// statusTimeout bounds asking the other nodes; those that do not answer are
	// shown as they last were.
	statusTimeout = 2 * time.Second
	// proposeTimeout bounds a write. The cluster gives up before, and says why.
	proposeTimeout = 15 * time.Second
	leaveTimeout   = 30 * time.Second
)

// Cluster is what the API needs of the cluster.
type Cluster interface {
	// View returns the view that this node serves, never nil.
	View() *state.View
	// Propose commits a write and returns when this node has applied it, or within
	// 2 s. A failure of the operation itself is in the Result. Errors:
	// [cluster.ErrNoLeader], [cluster.ErrUnknownOutcome], [cluster.ErrHeldBack].
	Propose(ctx context.Context, w cluster.Write) (state.Result, error)
	// Barrier returns when View holds every write that was answered anywhere before
	// the call. Errors: [cluster.ErrNoLeader], [cluster.ErrHeldBack], within 2 s.
	Barrier(ctx context.Context) error
	// NextView returns the first view newer than index, or the current one once ctx
	// is done.
	NextView(ctx context.Context, index uint64) *state.View
	// Status asks all alive nodes and returns in about a second, quorum or not.
	Status(ctx context.Context) cluster.Status
	// Leave takes this node out of the cluster for good; then the process stops.
	Leave(ctx context.Context) error
	// Expel takes a dead node out of Raft, by name or id. Errors, besides those of
	// Propose: [cluster.ErrNoMember], [cluster.ErrAlive], [cluster.ErrNeeded].
	Expel(ctx context.Context, peer string) error
}

// Config is what a Server is made of.
type Config struct {
	// Cluster is read and written by the API. Required.
	Cluster Cluster
	// Local gives what this node alone knows of its traffic and probes, at once.
	// Required.
	Local func() cluster.Local
	// Observed gives what this node's probes last found of a backend, nil if it does
	// not probe it. Required.
	Observed func(backendID string) *cluster.Observation
	// Ready returns nil while this node takes traffic, else why it does not.
	// Required.
	Ready func() error
	// Token, unless empty, must come as a bearer token with every request but
	// those for /livez and /readyz without verbose.
	Token string
	// Version is the program's, shown by /livez?verbose.
	Version string
	// Log gets committed writes and internal errors; nil discards them.
	Log *slog.Logger
	// Metrics are served at /metrics; nil makes new ones.
	Metrics *Metrics
	// MaxConnections bounds the connections that are open at once. On a quarter of them,
	// half of which may be of one address, no request that may be answered need be under
	// way; on two thirds, reads may wait for a newer view. 0: DefaultMaxConnections.
	MaxConnections int
}

// DefaultMaxConnections lets 1,000 reads wait at once.
const DefaultMaxConnections = 1500

// Server answers on the admin listener.
type Server struct {
	cluster  Cluster
	observed observed
	ready    func() error
	token    string
	version  string
	log      *slog.Logger
	metrics  http.Handler
	origins  *http.CrossOriginProtection

	http     http.Server
	loopback bool            // the listener's address is; set before serving begins
	serving  sync.WaitGroup  // serve
	stopping context.Context // done when Shutdown begins
	blocked  chan struct{}   // holds one for each read that waits

	strangers *strangers.Room
}

// New returns a server that does not listen yet.
func New(c Config) *Server {
	s := &Server{
		cluster:  c.Cluster,
		observed: c.Observed,
		ready:    c.Ready,
		token:    c.Token,
		version:  c.Version,
		log:      c.Log,
		origins:  http.NewCrossOriginProtection(),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
	s.metrics = c.Metrics.handler(c.Cluster, c.Local)
	s.http = http.Server{
		Handler:           s.guard(s.mux()),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      leaveTimeout + 15*time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.bound(cmp.Or(c.MaxConnections, DefaultMaxConnections))
	var stop context.CancelFunc
	s.stopping, stop = context.WithCancel(context.Background())
	s.http.RegisterOnShutdown(stop)
	return s
}

// bound shares out so many connections.
func (s *Server) bound(connections int) {
	idle := connections / 4
	s.strangers = strangers.New(strangers.Config{
		Port: "admin address", Max: idle, MaxPeer: idle / 2, MaxBusy: connections - idle, Log: s.log,
	})
	s.strangers.Watch(&s.http)
	s.blocked = make(chan struct{}, connections*2/3)
}

// Listen binds addr and begins to answer; the address it returns has the port
// that was chosen for port 0. It may be called once. The error names the address
// and says what to do.
func (s *Server) Listen(addr string) (net.Addr, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, listenError(addr, err)
	}
	if tcp, ok := l.Addr().(*net.TCPAddr); ok {
		s.loopback = tcp.IP.IsLoopback()
	}
	s.serving.Go(func() { s.serve(l) })
	return l.Addr(), nil
}

func (s *Server) serve(l net.Listener) {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		s.log.Error("cannot go on listening for admin", "addr", l.Addr().String(), "error", err)
	}
}

// Shutdown stops listening, answers reads that wait for a newer view, and lets
// requests end until ctx is done, then cuts them off, which is its error.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
		err = fmt.Errorf("cannot end all admin requests in time: %w", err)
	}
	s.serving.Wait()
	return err
}

func listenError(addr string, err error) error {
	advice := "give host:port with -admin"
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		advice = "stop the other process or choose another with -admin"
	case errors.Is(err, syscall.EACCES):
		advice = "choose a port above 1023 with -admin"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		advice = "choose an address of this machine with -admin"
	}
	return fmt.Errorf("cannot listen for admin on %s: %w; %s", addr, innermost(err), advice)
}

// innermost returns the first cause of err, which alone says what happened
// without repeating the address.
func innermost(err error) error {
	for {
		cause := errors.Unwrap(err)
		if cause == nil {
			return err
		}
		err = cause
	}
}
