package http1

import "bytes"

// Query is what follows the path and its question mark, as the client wrote it.
func (x *Exchange) Query() []byte {
	r := &x.request
	if r.path.to >= r.rest.to {
		return nil
	}
	return x.head[r.path.to+1 : r.rest.to]
}

// Secure says whether the client came by TLS, as far as is known: to this server, or to a
// trusted one before it.
func (x *Exchange) Secure() bool { return equalFold(x.kept(forwardedProto, x.session.scheme), "https") }

// Field is the value of the first field of that name, which is given in lower case; empty
// if there is none.
func (x *Exchange) Field(name string) []byte {
	for _, f := range x.request.fields {
		if equalFold(f.name.of(x.head), name) {
			return f.value.of(x.head)
		}
	}
	return nil
}

// Cookie is the value of the first cookie of exactly that name (RFC 6265, section 4.2.1);
// empty if there is none.
func (x *Exchange) Cookie(name string) []byte {
	for _, f := range x.request.fields {
		if f.is != cookie {
			continue
		}
		for list := f.value.of(x.head); len(list) > 0; {
			var pair []byte
			pair, list, _ = bytes.Cut(list, []byte(";"))
			from, to := trim(pair, 0, len(pair))
			if pair = pair[from:to]; len(pair) > len(name) && pair[len(name)] == '=' && string(pair[:len(name)]) == name {
				return pair[len(name)+1:]
			}
		}
	}
	return nil
}
