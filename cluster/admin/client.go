package admin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"lbnode/cluster"
)

const (
	defaultPortText = "8404"
	// clientTimeout bounds a call; the server takes up to leaveTimeout for one.
	clientTimeout = leaveTimeout + 10*time.Second
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 64 << 20
)

// Client calls the admin API of one node. Its errors are a [*Problem] when the
// node refused, and else say why the node could not be asked. A change that may
// have happened although it was not confirmed is a [cluster.ErrUnknownOutcome]. It
// may be used concurrently.
type Client struct {
	addr  string // host:port
	token string
	http  *http.Client
}

// NewClient returns a client of the node whose admin listener is at addr: host or
// host:port, of which the host may be left out for this machine. The token may be
// empty. It does not connect yet.
func NewClient(addr, token string) *Client {
	return &Client{
		addr:  completeAddr(addr),
		token: token,
		http: &http.Client{
			Timeout: clientTimeout,
			// No proxy from the environment: the admin API is near, and the token is
			// not for others.
			Transport:     &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func completeAddr(addr string) string {
	addr = strings.TrimSuffix(strings.TrimPrefix(addr, "http://"), "/")
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		host, port = strings.Trim(addr, "[]"), defaultPortText
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// Cluster returns the whole cluster as the node sees it.
func (c *Client) Cluster(ctx context.Context) (*ClusterView, error) {
	return call[*ClusterView](ctx, c, "GET", "/cluster", nil)
}

// Pools returns all pools, sorted by name.
func (c *Client) Pools(ctx context.Context) ([]Pool, error) {
	return call[[]Pool](ctx, c, "GET", "/v1/pools", nil)
}

// CreatePool makes a pool and returns it.
func (c *Client) CreatePool(ctx context.Context, pool PoolSpec) (*Pool, error) {
	return call[*Pool](ctx, c, "POST", "/v1/pools", pool)
}

// UpdatePool changes what the spec names of a pool and returns the pool.
func (c *Client) UpdatePool(ctx context.Context, name string, change PoolSpec) (*Pool, error) {
	return call[*Pool](ctx, c, "PATCH", poolPath(name), change)
}

// DeletePool removes a pool and its backends.
func (c *Client) DeletePool(ctx context.Context, name string) error {
	_, err := call[none](ctx, c, "DELETE", poolPath(name), nil)
	return err
}

// Backends returns the backends of a pool in their order.
func (c *Client) Backends(ctx context.Context, pool string) ([]Backend, error) {
	return call[[]Backend](ctx, c, "GET", poolPath(pool)+"/backends", nil)
}

// AddBackend adds a backend to a pool and returns it.
func (c *Client) AddBackend(ctx context.Context, pool string, backend BackendSpec) (*Backend, error) {
	return call[*Backend](ctx, c, "POST", poolPath(pool)+"/backends", backend)
}

// UpdateBackend changes what the spec names of a backend and returns the backend, and
// the index of a view that has the change.
func (c *Client) UpdateBackend(ctx context.Context, pool, name string, change BackendSpec) (*Backend, uint64, error) {
	return callAt[*Backend](ctx, c, "PATCH", backendPath(pool, name), change)
}

// RemoveBackend takes a backend out of a pool.
func (c *Client) RemoveBackend(ctx context.Context, pool, name string) error {
	_, err := call[none](ctx, c, "DELETE", backendPath(pool, name), nil)
	return err
}

// Routes returns all routes, sorted by host, then path.
func (c *Client) Routes(ctx context.Context) ([]Route, error) {
	return call[[]Route](ctx, c, "GET", "/v1/routes", nil)
}

// PutRoute makes a route, or sends an existing one to another pool, and returns
// it.
func (c *Client) PutRoute(ctx context.Context, route Route) (*Route, error) {
	return call[*Route](ctx, c, "POST", "/v1/routes", route)
}

// RemoveRoute takes the route for a host and a path away.
func (c *Client) RemoveRoute(ctx context.Context, host, path string) error {
	query := url.Values{"host": {host}, "path": {path}}
	_, err := call[none](ctx, c, "DELETE", "/v1/routes?"+query.Encode(), nil)
	return err
}

// Snapshot returns a snapshot file of what is agreed now or, if stale, of what the
// node has, which works without quorum.
func (c *Client) Snapshot(ctx context.Context, stale bool) ([]byte, error) {
	path := snapshotPath
	if stale {
		path += "?stale=1"
	}
	return call[json.RawMessage](ctx, c, "GET", path, nil)
}

// Restore puts the configuration in a snapshot file in place of the cluster's.
func (c *Client) Restore(ctx context.Context, file []byte) (*Restored, error) {
	return call[*Restored](ctx, c, "POST", snapshotPath, json.RawMessage(file))
}

// Leave takes the node out of its cluster for good, after which it stops.
func (c *Client) Leave(ctx context.Context) error {
	_, err := call[none](ctx, c, "POST", "/v1/leave", nil)
	return err
}

// Expel takes a dead node, by name or id, out of Raft.
func (c *Client) Expel(ctx context.Context, peer string) error {
	_, err := call[none](ctx, c, "DELETE", "/v1/raft/peers/"+url.PathEscape(peer), nil)
	return err
}

// none is the body of an answer that has none.
type none struct{}

// call sends a request with body, if any, as JSON and decodes the answer.
func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	answer, _, err := callAt[T](ctx, c, method, path, body)
	return answer, err
}

// callAt gives the index of the view besides that was answered from, 0 if none was.
func callAt[T any](ctx context.Context, c *Client, method, path string, body any) (answer T, index uint64, err error) {
	data, tag, err := c.send(ctx, method, path, body)
	if err != nil || len(data) == 0 {
		return answer, 0, err
	}
	if tag != "" {
		index, err = strconv.ParseUint(strings.Trim(tag, `"`), 10, 64)
	}
	if err = cmp.Or(err, json.Unmarshal(data, &answer)); err != nil {
		return answer, 0, fmt.Errorf("cannot read the answer of %s to %s %s: %w; is -admin right?", c.addr, method, path, err)
	}
	return answer, index, nil
}

// send gives the body of the answer and its ETag.
func (c *Client) send(ctx context.Context, method, path string, body any) (answer []byte, tag string, err error) {
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})
	req, err := c.newRequest(ctx, method, path, body)
	if err != nil {
		return nil, "", fmt.Errorf("cannot ask lbnode at %q: %w", c.addr, innermost(err))
	}
	resp, err := c.http.Do(req)
	var data []byte
	if err == nil {
		defer resp.Body.Close()
		data, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	}
	switch {
	case err == nil:
		return data, resp.Header.Get("ETag"), c.refusal(resp, data)
	case method != http.MethodGet && sent.Load():
		return nil, "", fmt.Errorf("%w: lbnode at %s was asked but did not answer: %w", cluster.ErrUnknownOutcome, c.addr, cmp.Or(ctx.Err(), innermost(err)))
	}
	return nil, "", c.unreachable(ctx, err)
}

func (c *Client) newRequest(ctx context.Context, method, path string, body any) (*http.Request, error) {
	var data bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&data).Encode(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.addr+path, &data)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if method != http.MethodGet {
		// net/http sends a request that has a key once more if its connection was
		// closed while idle.
		req.Header.Set(keyHeader, cluster.NewID())
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("cannot wait for lbnode at %s: %w", c.addr, ctx.Err())
	}
	return fmt.Errorf("cannot reach lbnode at %s: %w; is the node running? set -admin or LBNODE_ADMIN", c.addr, innermost(err))
}

// refusal makes an error of an answer that is not a success.
func (c *Client) refusal(resp *http.Response, data []byte) error {
	if resp.StatusCode < 300 {
		return nil
	}
	var problem Problem
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind == "application/problem+json" && json.Unmarshal(data, &problem) == nil && problem.Detail != "" {
		return &problem
	}
	return errors.New(c.addr + " answered " + resp.Status + ", not as lbnode does; is -admin right?")
}

func backendPath(pool, name string) string {
	return poolPath(pool) + "/backends/" + url.PathEscape(name)
}
