package main

import (
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"lbnode/cluster"
)

// reload reads the file of -secret again on each SIGHUP. A file that cannot be
// used changes nothing. From its creation on, the signal does not end the process.
type reload struct {
	path    string // of the secrets, empty for none
	log     *slog.Logger
	hangups chan os.Signal
	running sync.WaitGroup
}

func newReload(path string, log *slog.Logger) *reload {
	r := &reload{path: path, log: log, hangups: make(chan os.Signal, 1)}
	signal.Notify(r.hangups, syscall.SIGHUP)
	return r
}

// start begins to give the secrets to c.
func (r *reload) start(c *cluster.Cluster) { r.running.Go(func() { r.loop(c) }) }

func (r *reload) stop() {
	signal.Stop(r.hangups)
	close(r.hangups)
	r.running.Wait()
}

func (r *reload) loop(c *cluster.Cluster) {
	for range r.hangups {
		if r.path == "" {
			r.log.Info("nothing to reload: there is no -secret")
			continue
		}
		secrets, err := cluster.ReadSecrets(r.path)
		if err == nil {
			err = c.SetSecrets(secrets)
		}
		if err != nil {
			r.log.Error("the secrets stay as they were", "error", err)
		}
	}
}
