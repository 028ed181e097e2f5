package main

import (
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"lbnode/cluster"
)

// reload reads the file of -secret again on each SIGHUP, and opens that of -access-log
// anew on each SIGUSR1, for who has moved it away. A file that cannot be used changes
// nothing. From its creation on, the signals do not end the process.
type reload struct {
	path    string // of the secrets, empty for none
	log     *slog.Logger
	signals chan os.Signal
	running sync.WaitGroup
}

func newReload(path string, log *slog.Logger) *reload {
	r := &reload{path: path, log: log, signals: make(chan os.Signal, 2)}
	signal.Notify(r.signals, syscall.SIGHUP, syscall.SIGUSR1)
	return r
}

// start begins to give the secrets to the node's cluster, and what is made of them to its
// proxy, and to open the access log, if there is one.
func (r *reload) start(n *node) { r.running.Go(func() { r.loop(n) }) }

func (r *reload) stop() {
	signal.Stop(r.signals)
	close(r.signals)
	r.running.Wait()
}

func (r *reload) loop(n *node) {
	for s := range r.signals {
		switch {
		case s == syscall.SIGHUP:
			r.readSecrets(n)
		case n.access == nil:
			r.log.Info("nothing to open anew: there is no -access-log")
		default:
			n.access.Reopen()
		}
	}
}

func (r *reload) readSecrets(n *node) {
	if r.path == "" {
		r.log.Info("nothing to reload: there is no -secret")
		return
	}
	secrets, err := cluster.ReadSecrets(r.path)
	if err == nil {
		err = n.cluster.SetSecrets(secrets)
	}
	if err != nil {
		r.log.Error("the secrets stay as they were", "error", err)
		return
	}
	n.proxy.RenewCookies()
}
