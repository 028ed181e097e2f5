package http1

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Every byte at every place of a value that is looked at eight bytes at a time.
func TestTextAndVisible(t *testing.T) {
	for length := 1; length <= 25; length++ {
		for at := range length {
			for c := range 256 {
				b := bytes.Repeat([]byte{'a'}, length)
				b[at] = byte(c)
				isText := c >= ' ' && c != 0x7f || c == '\t'
				if text(b) != isText || visible(b) != (isText && c != ' ' && c != '\t') {
					t.Fatalf("%q: got text %t, visible %t", b, text(b), visible(b))
				}
			}
		}
	}
}

// Two odd bytes beside each other, since a borrow could hide one behind the other.
func TestTextWithTwoOddBytes(t *testing.T) {
	for first := range 256 {
		for second := range 256 {
			b := []byte("abc" + string([]byte{byte(first), byte(second)}) + "defgh")
			if got, want := text(b), text(b[3:4]) && text(b[4:5]); got != want {
				t.Fatalf("%q: got text %t, want %t", b, got, want)
			}
			if got, want := visible(b), visible(b[3:4]) && visible(b[4:5]); got != want {
				t.Fatalf("%q: got visible %t, want %t", b, got, want)
			}
		}
	}
}

func TestTokens(t *testing.T) {
	for c := range 256 {
		want := c > ' ' && c < 0x7f && !strings.ContainsRune("\"(),/:;<=>?@[\\]{}", rune(c))
		if got := token([]byte{'a', byte(c)}); got != want {
			t.Errorf("%q: got %t, want %t", rune(c), got, want)
		}
	}
	if token(nil) {
		t.Error("nothing is a token, want not")
	}
}

func TestDecimal(t *testing.T) {
	for _, s := range []string{"", "0", "00", "007", "9223372036854775807", "9223372036854775808", "9223372036854775817", "10000000000000000000",
		"0000000000000000000000000001", "-1", "+1", "1 ", " 1", "1_0", "0x1", "1e1", "a", "1.0", "99999999999999999999"} {
		want, err := strconv.ParseUint(s, 10, 63)
		digits := strings.Trim(s, "0123456789") == ""
		n, ok := decimal([]byte(s))
		if ok != (err == nil && digits) || ok && n != int64(want) {
			t.Errorf("%q: got %d, %t; want %d, %v", s, n, ok, want, err)
		}
	}
	if n, ok := decimal([]byte(strconv.Itoa(math.MaxInt64))); !ok || n != math.MaxInt64 {
		t.Errorf("got %d, %t for the largest number", n, ok)
	}
}

func TestLists(t *testing.T) {
	tests := map[string][]string{
		"": nil, "a": {"a"}, "a,b": {"a", "b"}, " a ,\tb\t": {"a", "b"}, ",": {""}, "a,,b,": {"a", "", "b"}, ", a": {"", "a"}, "a b": {"a b"},
	}
	for list, want := range tests {
		var got []string
		for rest := []byte(list); len(rest) > 0; {
			var item []byte
			item, rest = nextItem(rest)
			got = append(got, string(item))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", list, got, want)
		}
	}
}

// A name means the same in all letters, and any other name, be it one letter off,
// means nothing.
func TestNames(t *testing.T) {
	for _, list := range names {
		for _, n := range list {
			for _, name := range []string{n.name, strings.ToUpper(n.name)} {
				if got := identify([]byte(name)); got != n.is && (got != forwardedOther || !strings.HasPrefix(n.name, "x-forwarded")) {
					t.Errorf("%s: got %d, want %d", name, got, n.is)
				}
				for _, off := range []string{"x" + name, name + "x", name[1:], name[:len(name)-1]} {
					if got := identify([]byte(off)); got != other && got != forwardedOther {
						t.Errorf("%s: got %d, want none", off, got)
					}
				}
			}
			dashed := strings.ReplaceAll(n.name, "-", "_")
			if got := identify([]byte(dashed)); dashed != n.name && n.is < authorization && got != lookalike {
				t.Errorf("%s: got %d, want it not to pass for %s", dashed, got, n.name)
			}
		}
	}
}

func TestEscaped(t *testing.T) {
	tests := map[string]bool{"": true, "/": true, "/%41%7e%7E%00": true, "/%": false, "/%4": false, "/%4g": false, "/%g4": false, "/%%41": false, "/%41%": false}
	for path, want := range tests {
		if got := escaped([]byte(path)); got != want {
			t.Errorf("%q: got %t, want %t", path, got, want)
		}
	}
}
