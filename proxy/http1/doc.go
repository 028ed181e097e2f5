// Package http1 is the HTTP/1.1 engine: it serves clients' connections, and carries
// requests to backends and their answers back.
//
// Each connection of a client has one goroutine, which does all that a request needs
// with calls that wait: it reads the head, has a Handler choose a backend, sends the
// request there, waits for the answer and passes it on. Only a request's body that is
// not there with its head gets a second goroutine, since the answer may come before
// its end. Nothing is allocated for a request. A connection that has been idle for a
// while has no goroutine (rest_linux.go).
//
// request.go, response.go, head.go and chunks.go are the codec. They take bytes and
// return; reading is not theirs. A head becomes offsets into the connection's
// buffer, and is written anew for the other side (rewrite.go), as are the bodies'
// frames (body.go, outlet.go). session.go and server.go are the client's side,
// upstream.go, backend.go and place.go the backend's, private.go what of that is one
// client's alone, exchange.go, answer.go, upload.go, hedge.go and tunnel.go what goes
// between them, refuse.go what is answered here, linger.go how clients get it that
// still send.
//
// There are no timers and no deadlines on the way of a request. A session notes in
// its watch until when something must happen, and the sweeper looks at all of them
// ten times a second (sweep.go), and where a body waits, at how far it has come (motion.go).
//
// What a request is sent to, and how often, is not decided here.
//
// Invariants: what is ambiguous by RFC 9112 is refused, and nothing is forwarded as
// it came. A connection to a backend is used again only after the exact end of an
// answer with nothing behind it, by a request that nothing of was sent elsewhere; one by
// which a client authenticates, by that client alone. An answer that was cut short never
// looks whole.
package http1
