package admin

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
)

const (
	keyHeader = "Idempotency-Key"
	// maxKey is the length of the longest key, in bytes.
	maxKey = 255
)

// idempotencyKey returns the key that a write was sent with, empty if it has none.
func idempotencyKey(r *http.Request) (string, error) {
	keys := r.Header.Values(keyHeader)
	if len(keys) == 0 {
		return "", nil
	}
	unprintable := func(c rune) bool { return c < ' ' || c > '~' }
	if len(keys) > 1 || keys[0] == "" || len(keys[0]) > maxKey || strings.ContainsFunc(keys[0], unprintable) {
		return "", badRequest(keyHeader, keyHeader+" is not one key of 1 to 255 printable ASCII characters",
			"make one at random for each change, and send it again with each try of that change")
	}
	return keys[0], nil
}

// requestID returns the id under which the cluster knows a write again, empty if
// it was sent without a key. It comes from all that decides what the write does, so
// that a key used for two different requests does not make the second a repetition.
func requestID(r *http.Request) (string, error) {
	key, err := idempotencyKey(r)
	if err != nil || key == "" {
		return "", err
	}
	body, err := readAll(nil, r)
	if err != nil {
		return "", err
	}
	digest := sha256.New()
	for _, part := range []string{key, r.Method, r.URL.EscapedPath(), r.URL.RawQuery, ifMatchTag(r), string(body)} {
		fmt.Fprintf(digest, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(digest.Sum(nil)[:16]), nil
}
