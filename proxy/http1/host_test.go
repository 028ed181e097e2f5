package http1

import (
	"strings"
	"testing"
)

func TestHosts(t *testing.T) {
	tests := []struct {
		host string
		want bool
	}{
		{"a", true}, {"A.Example", true}, {"a.example.", true}, {"a_b-c~d.1", true}, {"xn--bcher-kva.example", true},
		{"a:80", true}, {"a:65535", true}, {"a:", true}, {"192.0.2.1:8080", true},
		{"[::1]", true}, {"[::1]:80", true}, {"[2001:db8::1]:", true}, {"[::ffff:192.0.2.1]", true},
		{"a!b", true}, {"a,b", true}, {"a;b", true}, {"!$&'()*+,;=", true}, {"*", true}, {"%2Ftmp%2Fx.sock", true}, {"a%00b", true}, {"a%c3%A9:80", true},
		{"a..b", true}, {".", true}, {"a%", false}, {"a%2", false}, {"a%2g", false}, {"%%20", false}, {"a:%38", false},
		{"", false}, {":80", false},
		{"a:b", false}, {"a:-1", false}, {"a:+1", false}, {"a:65536", false}, {"a:080080", false}, {"a:80:80", false}, {"a: 80", false},
		{"a@b", false}, {"a/b", false}, {"a b", false}, {"a\\b", false}, {"a\"b", false}, {"a<b", false}, {"a[b", false}, {"a?b", false}, {"a#b", false}, {"a{b", false}, {"a|b", false}, {"a^b", false}, {"a`b", false}, {"caf\xe9", false},
		{"[", false}, {"[::1", false}, {"::1", false}, {"[::1]x", false}, {"[::1]80", false}, {"[fe80::1%25eth0]", false}, {"[192.0.2.1]", false}, {"[a]", false}, {"[]", false},
		{strings.Repeat("a", 255), true}, {strings.Repeat("a", 256), false},
	}
	for _, test := range tests {
		if got := ValidHost([]byte(test.host)); got != test.want {
			t.Errorf("%q: got %t, want %t", test.host, got, test.want)
		}
	}
}
