package http1

// known is a field whose name the engine knows; 0 is any other.
type known uint8

const (
	other known = iota
	host
	connection
	contentLength
	transferEncoding
	te
	trailer
	upgrade
	expect
	keepAlive
	proxyConnection
	proxyAuthenticate
	proxyAuthorization
	http2Settings
	proxyField
	forwarded
	realIP
	requestID
	forwardedFor
	forwardedProto
	forwardedHost
	forwardedOther // X-Forwarded-anything
	via
	maxForwards
	lookalike // a name with _ or another sign for - that is read like one of those above
	// Only of meaning as trailers, where they are dropped.
	authorization
	contentEncoding
	contentRange
	contentType
	location
	setCookie
	cookie
	cacheControl
	ageField
	expires
	date
	vary
	retryAfter
)

// names are in lower case, by their length, so that most fields are told apart from
// all of them by one look.
var names = byLength(map[string]known{
	"host": host, "connection": connection, "content-length": contentLength, "transfer-encoding": transferEncoding,
	"te": te, "trailer": trailer, "upgrade": upgrade, "expect": expect, "keep-alive": keepAlive,
	"proxy-connection": proxyConnection, "proxy-authenticate": proxyAuthenticate, "proxy-authorization": proxyAuthorization,
	"http2-settings": http2Settings, "proxy": proxyField, "forwarded": forwarded, "x-real-ip": realIP,
	"via": via, "max-forwards": maxForwards, "x-request-id": requestID, "x-forwarded-for": forwardedFor, "x-forwarded-proto": forwardedProto, "x-forwarded-host": forwardedHost,
	"authorization": authorization, "content-encoding": contentEncoding, "content-range": contentRange,
	"content-type": contentType, "location": location, "set-cookie": setCookie, "cookie": cookie,
	"cache-control": cacheControl, "age": ageField, "expires": expires, "date": date, "vary": vary, "retry-after": retryAfter,
})

type namesOfLength [20][]struct {
	name string
	is   known
}

func byLength(all map[string]known) (names namesOfLength) {
	for name, is := range all {
		names[len(name)] = append(names[len(name)], struct {
			name string
			is   known
		}{name, is})
	}
	return names
}

// identify says which field a name is of.
func identify(name []byte) known {
	if len(name) < len(names) {
		for _, n := range names[len(name)] {
			if equalFold(name, n.name) {
				return n.is
			}
		}
	}
	return resembles(name)
}

// resembles finds names that could pass for what a proxy says: X-Forwarded-anything,
// and, with other signs for dashes, whatever a proxy removes or sets. CGI and its heirs
// make no difference between X_Forwarded_For, X.Forwarded.For and X-Forwarded-For.
func resembles(name []byte) known {
	const prefix = "x-forwarded"
	odd := !plainName(name)
	switch {
	case len(name) >= len(prefix) && equalDashed(name[:len(prefix)], prefix):
		if odd {
			return lookalike
		}
		return forwardedOther
	case len(name) >= len(names) || !odd:
		return other
	}
	for _, n := range names[len(name)] {
		if n.is < authorization && equalDashed(name, n.name) {
			return lookalike
		}
	}
	return other
}

// isPlain says which bytes of a name every program takes for what they are.
var isPlain = table("-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

func plainName(name []byte) bool {
	for _, c := range name {
		if !isPlain[c] {
			return false
		}
	}
	return true
}

// equalDashed compares a name with one in lower case, taking what is not plain for a dash.
func equalDashed(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i, c := range name {
		if !isPlain[c] {
			c = '-'
		}
		if lowerOf(c) != lower[i] {
			return false
		}
	}
	return true
}

// fate is what becomes of a client's field on its way to a backend.
type fate uint8

const (
	endToEnd fate = iota // it passes, unless Connection names it
	claim                // it passes from a trusted proxy, whatever Connection names, and from nobody else
	perHop               // it is meant for this hop only (RFC 9110, section 7.6.1), or has become so by history
	dropped              // it does not pass as it came; what backends get of its kind, the proxy writes
)

// fates are those of all fields; other names go end to end. DESIGN.md has what the proxy
// writes itself. Framing is written anew.
var fates = [...]fate{
	connection: perHop, keepAlive: perHop, te: perHop, upgrade: perHop, http2Settings: perHop,
	contentLength: perHop, transferEncoding: perHop,
	proxyConnection: perHop, proxyAuthenticate: perHop, proxyAuthorization: perHop,
	trailer: dropped, // which of them will pass is not known yet
	host:    dropped, proxyField: dropped, requestID: dropped, lookalike: dropped,
	forwardedFor: dropped, forwardedProto: dropped, forwardedHost: dropped,
	forwardedOther: claim, forwarded: claim, realIP: claim,
	retryAfter: endToEnd, // the last one
}

// hop says whether a field is meant for the next hop only.
func (k known) hop() bool { return fates[k] == perHop }

// headerOnly says whether a field has no business in a trailer: framing, routing,
// authentication and what changes the meaning of the message (RFC 9110, section
// 6.5.1).
func (k known) headerOnly() bool { return k != other }
