package proxy

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"lbnode/proxy/http1"
)

// outcome is what became of a request, for counts and the access log.
type outcome struct {
	pool    string // "" if none matched
	backend string // the last one; "" if none was asked
	retries int
	code    int // that the client got
	ended   time.Time
	end     end
	reason  string // in words; empty if it ended well
}

// maxReason bounds the words of a reason, in bytes.
const maxReason = 250

// reasonOf puts in words what an exchange came to: on one line, since joined errors have one
// each.
func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	text := strings.ReplaceAll(err.Error(), "\n", ": ")
	return text[:min(len(text), maxReason)]
}

// end is how an exchange ended. That of a refusal is the refusal's reason.
type end string

const (
	endOK             end = "ok"
	endBadRequest     end = "bad_request"     // the request or its body is malformed
	endClientLeft     end = "client_left"     // before it had the whole answer
	endClientTimeout  end = "client_timeout"  // it sent, or took, nothing more
	endBackendTimeout end = "backend_timeout" // the backend did
	endUnreachable    end = "unreachable"     // no connection could be made
	endBusy           end = "busy"            // the backend has as many as it may have, be it one on trial
	endLost           end = "lost"            // the connection was, before an answer came
	endBadAnswer      end = "bad_answer"      // one that cannot be passed on
	endCut            end = "cut"             // the answer broke off, or the node stopped
)

// endOf says how an exchange ended that failed with err. What is more telling goes
// first: one error may say that an answer was cut, and why.
func endOf(err error) end {
	if err == nil { // before what follows is made room for
		return endOK
	}
	var fault *http1.Fault
	var connect *http1.ConnectError
	switch {
	case errors.Is(err, http1.ErrClientStalled):
		return endClientTimeout
	case errors.Is(err, http1.ErrBackendStalled):
		return endBackendTimeout
	case errors.Is(err, http1.ErrCut):
		return endCut
	case errors.Is(err, http1.ErrBadAnswer):
		return endBadAnswer
	case errors.As(err, &fault):
		return endOfFault(fault)
	case errors.Is(err, http1.ErrClientLeft):
		return endClientLeft
	case errors.Is(err, http1.ErrFull), err == errOpen:
		return endBusy
	case errors.As(err, &connect):
		return endUnreachable
	}
	return endLost
}

func endOfFault(fault *http1.Fault) end {
	if fault.Status == http.StatusRequestTimeout {
		return endClientTimeout
	}
	return endBadRequest
}
