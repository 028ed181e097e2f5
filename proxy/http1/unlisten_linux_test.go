package http1

import (
	"net"
	"testing"
	"time"
)

// Connections that nobody has accepted when the listener is closed are not lost.
func TestUnlistenAcceptsTheLast(t *testing.T) {
	listener := listen(t)
	clients := make([]net.Conn, 20)
	for i := range clients {
		client, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		client.SetDeadline(time.Now().Add(time.Minute))
		clients[i] = client
	}
	late := unlisten(listener)
	if len(late) != len(clients) {
		t.Fatalf("got %d connections, want %d", len(late), len(clients))
	}
	for _, conn := range late {
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		conn.Close()
	}
	for _, client := range clients {
		if n, err := client.Read(make([]byte, 2)); n != 1 || err != nil {
			t.Errorf("got %d bytes, %v, want 1", n, err)
		}
	}
	if conn, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		conn.Close()
		t.Error("got another connection, want it refused")
	}
	if late := unlisten(listener); len(late) > 0 {
		t.Errorf("got %d connections of a closed listener", len(late))
	}
}
