package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// runRelay in the environment makes the test binary relay the listeners it
// inherits, the first to the first of these addresses and so on. A listener keeps
// the network that it was made in, so this leads from one network into another.
const runRelay = "LBNODE_TEST_RUN_RELAY"

// relayInherited does what runRelay says, until the process is killed.
func relayInherited(addrs []string) {
	var relaying sync.WaitGroup
	for i, addr := range addrs {
		l, err := net.FileListener(os.NewFile(uintptr(3+i), addr))
		if err != nil {
			fmt.Fprintln(os.Stderr, "cannot relay to", addr, err)
			os.Exit(1)
		}
		relaying.Go(func() { relayTCP(l, addr, 0) })
	}
	relaying.Wait()
}

// relayTCP hands on each connection of l to addr, each byte so much later, until
// l is closed.
func relayTCP(l net.Listener, addr string, delay time.Duration) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer in.Close()
			out, err := net.Dial("tcp", addr)
			if err != nil {
				return
			}
			defer out.Close()
			var both sync.WaitGroup
			both.Go(func() { pipe(out, in, delay) })
			both.Go(func() { pipe(in, out, delay) })
			both.Wait()
		}()
	}
}

// chunk is bytes that are handed on when they are due.
type chunk struct {
	data []byte
	due  time.Time
}

// pipe copies from one connection to the other. When either breaks, both end.
func pipe(to, from net.Conn, delay time.Duration) {
	defer to.Close()
	defer from.Close()
	if delay == 0 {
		io.Copy(to, from)
		return
	}
	late := make(chan chunk, 1024)
	var writing sync.WaitGroup
	writing.Go(func() {
		for c := range late {
			<-time.After(time.Until(c.due))
			if _, err := to.Write(c.data); err != nil {
				from.Close()
			}
		}
	})
	for {
		data := make([]byte, 16<<10)
		n, err := from.Read(data)
		if err != nil {
			break
		}
		late <- chunk{data[:n], time.Now().Add(delay)}
	}
	close(late)
	writing.Wait()
}

// relayUDP hands on each datagram that comes to c to addr, so much later, until c
// is closed. Nothing comes back this way: gossip answers to the address that its
// messages name.
func relayUDP(c net.PacketConn, addr net.Addr, delay time.Duration) {
	late := make(chan chunk, 1024)
	var writing sync.WaitGroup
	writing.Go(func() {
		for d := range late {
			<-time.After(time.Until(d.due))
			c.WriteTo(d.data, addr) // as with any datagram, it may be lost
		}
	})
	for {
		data := make([]byte, 64<<10)
		n, _, err := c.ReadFrom(data)
		if err != nil {
			break
		}
		late <- chunk{data[:n], time.Now().Add(delay)}
	}
	close(late)
	writing.Wait()
}

// relayLate makes all that is sent to addr reach the node at its real address so
// much later, TCP and UDP, until the test ends.
func relayLate(t *testing.T, addr, real string, delay time.Duration) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	to, err := net.ResolveUDPAddr("udp", real)
	if err != nil {
		t.Fatal(err)
	}
	var relaying sync.WaitGroup
	relaying.Go(func() { relayTCP(l, real, delay) })
	relaying.Go(func() { relayUDP(c, to, delay) })
	t.Cleanup(func() {
		l.Close()
		c.Close()
		relaying.Wait()
	})
}
