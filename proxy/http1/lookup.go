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

// Via gives the name that this proxy has in the Via field of the request, which is a token.
// It says whether the request came by that name before.
func (x *Exchange) Via(name string) (again bool) {
	x.via = name
	for _, f := range x.request.fields {
		if f.is == via && passedBy(f.value.of(x.head), name) {
			return true
		}
	}
	return false
}

// passedBy says whether name is the second word of an item, behind the protocol.
func passedBy(list []byte, name string) bool {
	for len(list) > 0 {
		var item []byte
		item, list = nextItem(list)
		at := 0
		for at < len(item) && !blank(item[at]) {
			at++
		}
		at, _ = trim(item, at, len(item))
		by := item[at:]
		if n := len(name); len(by) >= n && string(by[:n]) == name && (len(by) == n || blank(by[n])) {
			return true
		}
	}
	return false
}

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
