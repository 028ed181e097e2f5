package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"lbnode/cluster/strangers"
	"lbnode/state"
)

// The calls that nodes make to one another: HTTP/1.1 with JSON on the Raft port,
// behind the preamble and, with a secret, mutual TLS.

const (
	helloPath   = "/node/v1/hello"
	promisePath = "/node/v1/promise"
	proposePath = "/node/v1/propose"
	observePath = "/node/v1/observe"
	barrierPath = "/node/v1/barrier"
	reportPath  = "/node/v1/report"
	raftPath    = "/node/v1/raft"
	removePath  = "/node/v1/remove"
	expelPath   = "/node/v1/expel"

	// maxCall bounds the body of a call or an answer.
	maxCall = 65 << 20 // a snapshot of 64 MiB, and what goes around it
)

// helloReply is who a node is.
type helloReply struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	ClusterID string `json:"cluster_id"` // empty if it has none yet
	NonVoter  bool   `json:"non_voter"`
	Needs     int    `json:"needs,omitempty"` // the version of commands that its log holds
	// Instance is drawn by each process, Uptime how long it runs.
	Instance string        `json:"instance"`
	Uptime   time.Duration `json:"uptime"`
}

// promiseCall asks an empty node to take part in the cluster that From founds
// and in no other.
type promiseCall struct {
	ClusterID string `json:"cluster_id"`
	From      string `json:"from"` // node id
	To        string `json:"to"`   // node id: another may have come to the address since it said hello
	// Release takes the promise back: the founding failed.
	Release bool `json:"release,omitempty"`
}

// proposeCall carries a command to the leader.
type proposeCall struct {
	Command json.RawMessage `json:"command"`
}

// observeCall carries a node's observations to the leader.
type observeCall struct {
	From         string        `json:"from"`
	Observations []Observation `json:"observations"`
	// Ejected are the backends that the node has ejected, by id, with their URLs.
	Ejected map[string]string `json:"ejected,omitempty"`
}

// observeReply is what the leader knows of the members.
type observeReply struct {
	Members uint64 `json:"members,omitempty"` // see gossip.digest
}

// raftReply is what autopilot wants to know of a node.
type raftReply struct {
	LastIndex   uint64        `json:"last_index"`
	LastTerm    uint64        `json:"last_term"`
	LastContact time.Duration `json:"last_contact"`
}

// reportCall asks a node how it is.
type reportCall struct {
	// At, unless 0, asks for the digest of the view at that index, once the node has
	// it.
	At uint64 `json:"at,omitempty"`
}

// barrierReply is the index of the view that holds all that was committed before
// the barrier.
type barrierReply struct {
	Index uint64 `json:"index"`
}

// removeCall asks the leader to take a node out of Raft.
type removeCall struct {
	ID string `json:"id"`
}

// expelCall asks the leader to take another node, a dead one, out of Raft.
type expelCall struct {
	ID string `json:"id"`
}

// signed is a call that says who makes it.
type signed interface{ sender() string }

func (c promiseCall) sender() string { return c.From }
func (c observeCall) sender() string { return c.From }
func (c removeCall) sender() string  { return c.ID }

// callerKey is where the context of a call has the connection that it came on.
type callerKey struct{}

func withCaller(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, callerKey{}, conn)
}

// checkCaller refuses a call that another node makes than the one it names, and all
// but a hello of a node with this node's own id.
func checkCaller(ctx context.Context, path string, call any) error {
	peer, ok := ctx.Value(callerKey{}).(*peerConn)
	if !ok || peer.id == "" {
		return nil
	}
	if s, ok := call.(signed); ok && s.sender() != peer.id {
		return fmt.Errorf("node %s calls in the name of node %s", peer.id, s.sender())
	}
	if path == helloPath {
		return nil
	}
	return peer.refuseDouble()
}

// none stands for an empty call or reply.
type none struct{}

// answering is what a node does when another one calls.
type answering interface {
	hello() helloReply
	promise(promiseCall) error
	proposed(context.Context, proposeCall) (state.Result, error)
	observed(observeCall) (observeReply, error)
	reportAt(context.Context, reportCall) (Report, error)
	barrier(context.Context) (barrierReply, error)
	raftState() raftReply
	remove(context.Context, removeCall) error
	expel(context.Context, expelCall) error
}

// callServer answers the calls of other nodes.
type callServer struct {
	http *http.Server
	done chan struct{}
}

// serveCalls answers calls. Where there is no secret, those who call are strangers; nil is
// for where there is.
func serveCalls(l net.Listener, node answering, unproven *strangers.Room, log *slog.Logger) *callServer {
	routes := http.NewServeMux()
	routes.Handle("POST "+barrierPath, answer(func(ctx context.Context, _ none) (barrierReply, error) { return node.barrier(ctx) }))
	routes.Handle("POST "+helloPath, answer(func(context.Context, none) (helloReply, error) { return node.hello(), nil }))
	routes.Handle("POST "+promisePath, answer(func(_ context.Context, c promiseCall) (none, error) { return none{}, node.promise(c) }))
	routes.Handle("POST "+proposePath, answer(node.proposed))
	routes.Handle("POST "+observePath, answer(func(_ context.Context, c observeCall) (observeReply, error) { return node.observed(c) }))
	routes.Handle("POST "+reportPath, answer(node.reportAt))
	routes.Handle("POST "+raftPath, answer(func(context.Context, none) (raftReply, error) { return node.raftState(), nil }))
	routes.Handle("POST "+removePath, answer(func(ctx context.Context, c removeCall) (none, error) { return none{}, node.remove(ctx, c) }))
	routes.Handle("POST "+expelPath, answer(func(ctx context.Context, c expelCall) (none, error) { return none{}, node.expel(ctx, c) }))
	s := &callServer{done: make(chan struct{}), http: &http.Server{
		Handler:           routes,
		ConnContext:       withCaller,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
	if unproven != nil {
		s.http.Handler = bounded(routes, unproven)
		unproven.Watch(s.http)
	}
	go s.serve(l)
	return s
}

// bounded answers no more calls at once than there is room for.
func bounded(routes http.Handler, unproven *strangers.Room) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !unproven.Begin(r.Context()) {
			http.Error(w, "too many calls at once", http.StatusServiceUnavailable)
			return
		}
		routes.ServeHTTP(w, r)
	})
}

func (s *callServer) serve(l net.Listener) {
	defer close(s.done)
	s.http.Serve(l) // returns when stop closes it
}

func (s *callServer) stop() {
	s.http.Close()
	<-s.done
}

// answer makes a handler of a function from a call to its reply. A node that is
// not the leader says so with 421, one that does not know the outcome with 504, a
// command that is held back is a 409; every other failure is a 500 with its text.
func answer[Call, Reply any](do func(context.Context, Call) (Reply, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call Call
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCall)).Decode(&call); err != nil {
			http.Error(w, "cannot read the call: "+err.Error(), http.StatusBadRequest)
			return
		}
		if err := checkCaller(r.Context(), r.URL.Path, call); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		reply, err := do(r.Context(), call)
		switch {
		case errors.Is(err, errNotLeader):
			http.Error(w, err.Error(), http.StatusMisdirectedRequest)
		case errors.Is(err, ErrUnknownOutcome):
			http.Error(w, err.Error(), http.StatusGatewayTimeout)
		case errors.Is(err, ErrHeldBack):
			http.Error(w, err.Error(), http.StatusConflict)
		case errors.Is(err, ErrNeeded):
			http.Error(w, err.Error(), http.StatusLocked)
		case errors.Is(err, ErrAlive):
			http.Error(w, err.Error(), http.StatusPreconditionFailed)
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		default:
			json.NewEncoder(w).Encode(reply) // a broken connection is the caller's to see
		}
	})
}

// caller makes calls to other nodes.
type caller struct {
	http  *http.Client
	label func(addr string) string // names the node at an address for a person
}

func newCaller(d *dialer) *caller {
	return &caller{label: func(addr string) string { return addr }, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			conn, err := d.dial(ctx, addr, []byte{callConn})
			if err != nil {
				err = fmt.Errorf("%w: %w", errUnreached, err)
			}
			return conn, err
		},
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     time.Minute,
	}}}
}

func (c *caller) stop() { c.http.CloseIdleConnections() }

// call sends in to the node at addr, an address of its Raft port that may name the
// node that is meant, and reads its answer into out. Its error wraps errNotLeader if
// the node is not the leader, errUnreached if the call never left and ErrHeldBack if
// a node, be it this one, does not understand it; after any other but a refusal, the
// node may have done what it was asked, and the error wraps ErrUnknownOutcome.
func (c *caller) call(ctx context.Context, addr, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	_, plain := splitNamed(addr)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+plain+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.URL.Host = addr // which the dialer gets; the header Host stays plain
	response, err := c.http.Do(request)
	if about := (*url.Error)(nil); errors.As(err, &about) { // which would show addr as no address at all
		err = fmt.Errorf("%s at %s: %w", path, plain, about.Err)
	}
	if errors.Is(err, errUnreached) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	defer response.Body.Close()
	limited := io.LimitReader(response.Body, maxCall)
	if response.StatusCode == http.StatusOK {
		if err := json.NewDecoder(limited).Decode(out); err != nil {
			return fmt.Errorf("%w: cannot read the answer: %w", ErrUnknownOutcome, err)
		}
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(limited, 1024))
	switch response.StatusCode {
	case http.StatusMisdirectedRequest:
		return errNotLeader
	case http.StatusGatewayTimeout:
		return fmt.Errorf("%w: %s answered: %s", ErrUnknownOutcome, addr, bytes.TrimSpace(text))
	case http.StatusConflict:
		why := strings.TrimPrefix(string(bytes.TrimSpace(text)), ErrHeldBack.Error()+": ")
		return fmt.Errorf("%w: %s", ErrHeldBack, why)
	case http.StatusLocked:
		why := strings.TrimPrefix(string(bytes.TrimSpace(text)), ErrNeeded.Error()+": ")
		return fmt.Errorf("%w: %s", ErrNeeded, why)
	case http.StatusPreconditionFailed:
		why := strings.TrimPrefix(string(bytes.TrimSpace(text)), ErrAlive.Error()+": ")
		return fmt.Errorf("%w: %s", ErrAlive, why)
	case http.StatusNotFound:
		return fmt.Errorf("%w: %s does not know the call %s: upgrade it first", ErrHeldBack, c.label(addr), path)
	}
	return fmt.Errorf("%s answered: %s", addr, bytes.TrimSpace(text))
}
