package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// demoPlan is what a demo runs, all of it on 127.0.0.1.
type demoPlan struct {
	nodes    []demoNode
	backends []demoBackend
}

// demoNode is a node and its ports.
type demoNode struct {
	name                         string
	gossip, raft, admin, traffic int
}

// demoBackend is a backend and its port.
type demoBackend struct {
	name string
	port int
}

// demoMember is one process of a demo.
type demoMember struct {
	name string
	args []string
}

// standardDemo is the plan of lbnode demo.
func standardDemo() demoPlan {
	return demoPlan{
		nodes: []demoNode{
			{"lb1", 7946, 7947, 8404, 3000},
			{"lb2", 7956, 7957, 8414, 3100},
			{"lb3", 7966, 7967, 8424, 3200},
		},
		backends: []demoBackend{{"web-1", 3001}, {"web-2", 3002}, {"web-3", 3003}},
	}
}

func onLoopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func (n demoNode) adminAddr() string { return onLoopback(n.admin) }

func (b demoBackend) addr() string { return onLoopback(b.port) }

func (p demoPlan) names() (backends, nodes []string) {
	for _, b := range p.backends {
		backends = append(backends, b.name)
	}
	for _, n := range p.nodes {
		nodes = append(nodes, n.name)
	}
	return backends, nodes
}

// members are the processes that make up the plan; nodes keep their data in dir.
func (p demoPlan) members(dir string) []demoMember {
	var peers []string
	for _, n := range p.nodes {
		peers = append(peers, onLoopback(n.gossip))
	}
	var list []demoMember
	for _, n := range p.nodes {
		list = append(list, demoMember{n.name, []string{
			"-node", n.name,
			"-bind", onLoopback(n.gossip),
			"-raft", onLoopback(n.raft),
			"-admin", n.adminAddr(),
			"-http", onLoopback(n.traffic),
			"-join", strings.Join(peers, ","),
			"-data-dir", filepath.Join(dir, n.name),
			"-log-level", "warn",
		}})
	}
	for _, b := range p.backends {
		list = append(list, demoMember{b.name, []string{"demo", "backend", b.name, b.addr()}})
	}
	return list
}

// checkPorts makes sure that every process can have its ports.
func (p demoPlan) checkPorts() error {
	for _, n := range p.nodes {
		for _, port := range []struct {
			network string
			number  int
			use     string
		}{
			{"tcp", n.gossip, "gossip"}, {"udp", n.gossip, "gossip"}, {"tcp", n.raft, "raft"},
			{"tcp", n.admin, "admin"}, {"tcp", n.traffic, "traffic"},
		} {
			if err := checkPort(port.network, onLoopback(port.number), port.use+" of "+n.name); err != nil {
				return err
			}
		}
	}
	for _, b := range p.backends {
		if err := checkPort("tcp", b.addr(), "backend "+b.name); err != nil {
			return err
		}
	}
	return nil
}

func checkPort(network, addr, use string) error {
	err := tryListen(network, addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("cannot start the demo: %s %s (%s) is in use; stop what listens there", network, addr, use)
	}
	if err != nil {
		return fmt.Errorf("cannot start the demo: %s %s (%s) cannot be used: %w", network, addr, use, err)
	}
	return nil
}

func tryListen(network, addr string) error {
	if network == "udp" {
		conn, err := net.ListenPacket(network, addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	listener, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	return listener.Close()
}
