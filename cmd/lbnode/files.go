package main

import (
	"fmt"
	"log/slog"
	"os"
	"syscall"

	"lbnode/cluster/admin"
)

// The files that a node may have open are shared out, so that no kind of connection can
// take those that another, the log or the view on disk needs.
const (
	// ownFiles are for the log, the view, listeners and the other nodes, and for the 192
	// connections that strangers may have to the ports of gossip and Raft.
	ownFiles = 384
	// A probe takes up to two files, those of a name that is looked up. With the most of them
	// at once, as many silent backends as a pool may have are probed as often as is usual.
	filesOfProbe = 2
	fewestProbes = 32
	mostProbes   = 2048
	// fewestFiles leave something for clients.
	fewestFiles = 640
	// fewClients are so few that an operator must want to hear of it.
	fewClients = 1000
)

// fileShares are how many connections there may be.
type fileShares struct {
	clients int // each of which may need another one to a backend
	admin   int
	probes  int // under way at once
}

// shareFiles shares out a limit on open files.
func shareFiles(limit uint64) (fileShares, error) {
	if limit < fewestFiles {
		return fileShares{}, fmt.Errorf("the limit on open files is %d, and a node needs at least %d: raise it, for systemd with LimitNOFILE=, in a shell with ulimit -n", limit, fewestFiles)
	}
	files := int(min(limit, 1<<31-1)) // as good as none
	operators := min(max(files/8, 128), admin.DefaultMaxConnections)
	probes := min(max(files/16/filesOfProbe, fewestProbes), mostProbes)
	return fileShares{clients: (files - ownFiles - operators - filesOfProbe*probes) / 2, admin: operators, probes: probes}, nil
}

// openFiles returns the limit on open files. The runtime has raised it to what this
// process may have at most.
func openFiles() (uint64, error) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return 0, fmt.Errorf("cannot read the limit on open files: %w", os.NewSyscallError("getrlimit", err))
	}
	return files.Cur, nil
}

// planFiles says how many connections a node may have, of which at most so many of
// clients, or as many as the files allow for 0.
func planFiles(mostClients int, log *slog.Logger) (fileShares, error) {
	limit, err := openFiles()
	if err != nil {
		return fileShares{}, err
	}
	shares, err := shareFiles(limit)
	switch {
	case err != nil:
		return shares, err
	case mostClients > shares.clients:
		log.Warn("-max-connections is more than the limit on open files allows: raise that, with LimitNOFILE= or ulimit -n",
			"open_files", limit, "max_connections", mostClients, "allowed", shares.clients)
	case mostClients > 0:
		shares.clients = mostClients
	case shares.clients < fewClients:
		log.Warn("the limit on open files allows few clients: raise it, with LimitNOFILE= or ulimit -n",
			"open_files", limit, "connections", shares.clients)
	}
	return shares, nil
}
