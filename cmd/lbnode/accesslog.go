package main

import (
	"context"
	"time"

	"lbnode/proxy"
)

// lastLinesWithin bounds what a node that stops waits for who reads its access log.
const lastLinesWithin = 2 * time.Second

func (n *node) openAccessLog(cfg nodeConfig) (err error) {
	if cfg.accessLog == "" {
		return nil
	}
	n.access, err = proxy.OpenAccessLog(proxy.AccessLogConfig{
		File:    cfg.accessLog,
		Stdout:  cfg.stdout,
		Node:    cfg.cluster.Name,
		Dropped: n.metrics.AccessLogDropped,
		Log:     cfg.log,
	})
	return err
}

func (n *node) closeAccessLog(ctx context.Context) {
	if n.access == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lastLinesWithin)
	defer cancel()
	if err := n.access.Close(ctx); err != nil {
		n.log.Warn("the access log is not whole", "error", err)
	}
}
