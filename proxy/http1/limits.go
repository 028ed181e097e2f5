package http1

// Limits bound what one message may make the engine hold or do.
type Limits struct {
	Head      int // bytes of a message's head, first line included
	Target    int // bytes of a request's target
	Fields    int // header lines
	ChunkLine int // bytes of a chunk's size and extension
	Trailers  int // bytes of a message's trailers
	Interim   int // interim answers to one request that are passed on
}

// DefaultLimits are generous for browsers and APIs.
func DefaultLimits() Limits {
	return Limits{
		Head:      64 << 10,
		Target:    16 << 10,
		Fields:    1000,
		ChunkLine: 256,
		Trailers:  8 << 10,
		Interim:   10,
	}
}
