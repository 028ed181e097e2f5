package http1

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// isToken says which bytes a method or a field name is made of (RFC 9110, section
// 5.6.2).
var isToken = table("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

func table(members string) (set [256]bool) {
	for i := range len(members) {
		set[members[i]] = true
	}
	return set
}

func token(b []byte) bool {
	for _, c := range b {
		if !isToken[c] {
			return false
		}
	}
	return len(b) > 0
}

// text says whether b may be a field's value: no control bytes but tabs. Bytes above
// ASCII pass (RFC 9110, section 5.5).
func text(b []byte) bool {
	i := clean(b, ' ')
	for ; i < len(b); i++ {
		if c := b[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// visible says whether b has neither spaces nor control characters, as a target.
// Bytes above ASCII are not allowed there, but sent by many, and no two parties take
// them for anything else.
func visible(b []byte) bool {
	for _, c := range b[clean(b, '!'):] {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// escaped says whether each % begins an escape (RFC 3986, section 2.1).
func escaped(b []byte) bool {
	for i := bytes.IndexByte(b, '%'); i >= 0; i = bytes.IndexByte(b, '%') {
		if len(b) < i+3 || hex[b[i+1]] == noDigit || hex[b[i+2]] == noDigit {
			return false
		}
		b = b[i+3:]
	}
	return true
}

// clean counts bytes at the beginning of b, eight at a time, none of which is below
// least or DEL.
func clean(b []byte, least byte) int {
	const low, high = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		del := x ^ low*0x7f
		if bad := (x-low*uint64(least))&^x&high | (del-low)&^del&high; bad != 0 {
			return i + bits.TrailingZeros64(bad)/8
		}
	}
	return i
}

// trim cuts spaces and tabs off both ends (OWS, RFC 9110, section 5.6.3).
func trim(b []byte, from, to int) (int, int) {
	for from < to && blank(b[from]) {
		from++
	}
	for from < to && blank(b[to-1]) {
		to--
	}
	return from, to
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

// equalFold compares a name with one in lower case.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if lowerOf(c) != lower[i] {
			return false
		}
	}
	return true
}

func lowerOf(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// decimal reads a number of digits only. It fails above 2⁶³-1.
func decimal(b []byte) (n int64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' || n > (1<<63-1-int64(c-'0'))/10 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, len(b) > 0
}

func digits(b []byte) bool {
	for _, c := range b {
		if !digit(c) {
			return false
		}
	}
	return true
}

// has says whether an item of a list is that, which is in lower case.
func has(list []byte, lower string) bool {
	for len(list) > 0 {
		var item []byte
		if item, list = nextItem(list); equalFold(item, lower) {
			return true
		}
	}
	return false
}

// nextItem cuts the first item off a list that is separated by commas (RFC 9110,
// section 5.6.1).
func nextItem(list []byte) (item, rest []byte) {
	i := 0
	for i < len(list) && list[i] != ',' {
		i++
	}
	from, to := trim(list, 0, i)
	return list[from:to], list[min(i+1, len(list)):]
}
