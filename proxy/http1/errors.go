package http1

// Fault is what is wrong with a message.
type Fault struct {
	Status int // what a client is answered
	what   string
}

// Error says what is wrong.
func (f *Fault) Error() string { return f.what }

// What is wrong with messages. The status is for requests; a response with any fault
// is a 502.
var (
	errBareLF      = &Fault{400, "a line does not end with CR LF"}
	errRequestLine = &Fault{400, "the request line is not METHOD SP TARGET SP VERSION"}
	errMethod      = &Fault{400, "the method is not a token"}
	errTarget      = &Fault{400, "the target is not one of HTTP's forms"}
	errLongTarget  = &Fault{414, "the target is too long"}
	errVersion     = &Fault{505, "the version is not HTTP/1.0 or HTTP/1.1"}
	errStatusLine  = &Fault{502, "the status line is not VERSION SP STATUS"}
	errName        = &Fault{400, "a field name is not a token directly before a colon"}
	errFolded      = &Fault{400, "a header line begins with a space"}
	errValue       = &Fault{400, "a field value has a control character"}
	errLargeHead   = &Fault{431, "the header is too large"}
	errManyFields  = &Fault{431, "the header has too many fields"}
	errManyOptions = &Fault{431, "the Connection field has too many options"}
	errHost        = &Fault{400, "the host is missing, repeated or no host"}
	errLength      = &Fault{400, "the length is no number, or there are two"}
	errEncoding    = &Fault{400, "the transfer encoding is not chunked alone"}
	errBoth        = &Fault{400, "there are both a length and a transfer encoding"}
	errOldEncoding = &Fault{400, "HTTP/1.0 has no transfer encoding"}
	errSlow        = &Fault{408, "the request did not come in time"}
	errExpect      = &Fault{417, "the expectation is unknown"}
	errForwards    = &Fault{400, "Max-Forwards is no number, or there are two"}
	errChunk       = &Fault{400, "a chunk is malformed"}
	errChunkLine   = &Fault{400, "a chunk's extension is too long"}
	errTrailers    = &Fault{400, "the trailers are malformed or too large"}
)
