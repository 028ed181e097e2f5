package proxy

import (
	"bytes"
	"strings"

	"lbnode/proxy/balance"
	"lbnode/proxy/http1"
	"lbnode/state"
)

// keyer gives what requests have in common that should go to one backend.
type keyer func(x *http1.Exchange) uint64

// newKeyer returns the keyer that a pool's hash_on asks for. What has no such thing goes
// by its client, as does all if hash_on is of a newer version of the program.
func newKeyer(hashOn string) keyer {
	kind, name, _ := strings.Cut(hashOn, ":")
	part := parts[kind]
	if kind == state.HashHeader {
		name = strings.ToLower(name)
	}
	return func(x *http1.Exchange) uint64 {
		if part != nil {
			if text := part(x, name); len(text) > 0 {
				return balance.Key(text)
			}
		}
		return balance.Key(x.Client())
	}
}

// parts are those of a request that it may go by, besides its client.
var parts = map[string]func(x *http1.Exchange, name string) []byte{
	state.HashPath:   func(x *http1.Exchange, _ string) []byte { return x.Path() },
	state.HashHeader: (*http1.Exchange).Field,
	state.HashCookie: (*http1.Exchange).Cookie,
	state.HashQuery:  func(x *http1.Exchange, name string) []byte { return queryValue(x.Query(), name) },
}

// queryValue is the value of the first such key of a query, both as they stand there:
// unescaping would make two spellings one, at a price for each request.
func queryValue(query []byte, name string) []byte {
	for n := len(name); len(query) > 0; {
		if len(query) >= n && string(query[:n]) == name && (len(query) == n || query[n] == '=' || query[n] == '&') {
			value, _, _ := bytes.Cut(query[n:], []byte("&"))
			return bytes.TrimPrefix(value, []byte("="))
		}
		end := bytes.IndexByte(query, '&')
		if end < 0 {
			break
		}
		query = query[end+1:]
	}
	return nil
}
