package admin

import (
	"strings"
	"testing"
)

func TestToken(t *testing.T) {
	addr := serve(t, webPool(t), Config{Token: "s3cret"})
	for _, test := range []struct {
		path, authorization string
		want                int
	}{
		{"/cluster", "", 401},
		{"/metrics", "", 401},
		{"/v1/pools", "", 401},
		{"/nothing", "", 401},
		{"/livez", "", 200},
		{"/readyz", "", 200},
		{"/livez?verbose", "", 401},
		{"/readyz?verbose", "", 401},
		{"/readyz?%76erbose", "", 401},
		{"/readyz?verbose", "Bearer s3cret", 200},
		{"//livez/../cluster", "", 401},
		{"/livez/../cluster", "", 401},
		{"/cluster", "Bearer s3cret", 200},
		{"/cluster", "bearer  s3cret", 200},
		{"/cluster", "Bearer s3cre", 401},
		{"/cluster", "Bearer s3crett", 401},
		{"/cluster", "Bearer", 401},
		{"/cluster", "Bearer ", 401},
		{"/cluster", "s3cret", 401},
		{"/cluster", "Basic s3cret", 401},
	} {
		got := ask(t, "GET", "http://"+addr+test.path, "", "Authorization", test.authorization)
		if got.status != test.want {
			t.Errorf("%s with %q: got %d, want %d", test.path, test.authorization, got.status, test.want)
		}
		if got.status == 401 && !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%s: 401 without WWW-Authenticate", test.path)
		}
	}
}

func TestPagesOfOtherOriginsCannotWrite(t *testing.T) {
	c := webPool(t)
	addr := serve(t, c, Config{})
	for _, test := range []struct {
		name    string
		headers []string
		want    int
	}{
		{"a script", nil, 204},
		{"a page of our own", []string{"Origin", "http://" + addr, "Sec-Fetch-Site", "same-origin"}, 204},
		{"another page", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"a page of another port", []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"an older browser", []string{"Origin", "http://evil.example"}, 403},
		{"a sandboxed page", []string{"Origin", "null"}, 403},
	} {
		got := ask(t, "POST", "http://"+addr+"/v1/leave", "", test.headers...)
		if got.status != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got.status, test.want)
		}
	}
	if c.left != 2 {
		t.Errorf("left %d times, want 2", c.left)
	}
}

func TestHostsThatWereMadeToResolveToUs(t *testing.T) {
	addr := serve(t, webPool(t), Config{})
	guarded := serve(t, webPool(t), Config{Token: "s3cret"})
	for _, test := range []struct {
		host string
		want int
	}{
		{"localhost", 200},
		{"LOCALHOST:8404", 200},
		{"127.0.0.1:8404", 200},
		{"[::1]:8404", 200},
		{"[::1]", 200},
		{"192.0.2.1", 200},
		{"evil.example", 403},
		{"evil.example:8404", 403},
		{"localhost.evil.example", 403},
		{"127.0.0.1.evil.example", 403},
	} {
		if got := ask(t, "GET", "http://"+addr+"/cluster", "", "Host", test.host); got.status != test.want {
			t.Errorf("host %q: got %d, want %d", test.host, got.status, test.want)
		}
		if got := ask(t, "GET", "http://"+guarded+"/cluster", "", "Host", test.host, "Authorization", "Bearer s3cret"); got.status != 200 {
			t.Errorf("host %q with a token: got %d, want 200", test.host, got.status)
		}
	}
}
