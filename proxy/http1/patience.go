package http1

import "time"

// Patience is how long the backend of an exchange is waited for.
type Patience struct {
	Try      time.Duration // until it begins to answer
	Progress time.Duration // until anything moves after that, in either direction
	// Hedge, unless 0, is after how long without an answer the request is sent to another
	// backend too. What answers first is passed on; the other is given up.
	Hedge time.Duration
	// Other gives that backend, and Fields for its answer; nil if there is none to send it
	// to. It is called once at most.
	Other func() (*Backend, string)
	// Fresh has it sent over a connection that was never used: others may be as stale as one
	// before was.
	Fresh bool
	// Again says that it is sent again if its connection was stale, so that the answer to an
	// idle connection (408) is not taken for one.
	Again bool
	// FirstByte has Account.FirstByte kept, whatever Config.Times says.
	FirstByte bool
	// Fields are lines, each with its end, that are added to the head of the answer.
	Fields string
}
