package admin

import (
	"encoding/json"
	"strings"
	"testing"

	"lbnode/state"
)

// What an error says would take a setting away does.
func TestOffTakesSettingsAway(t *testing.T) {
	addr := "http://" + serve(t, webPool(t), Config{}) + "/v1/pools"
	made := ask(t, "POST", addr, `{"name":"all","strategy":"hash","hash_on":"path","health_check":{"type":"http","unhealthy_interval":"1s","method":"POST",
		"host":"h","status":"200","body":"b","tls":"on","port":81},"timeouts":{"try":"1s","hedge":"1s"},
		"limits":{"connections":1,"pending":1,"failures":1,"open":"1s"},"sticky":{"cookie":"c","drain":"move"},
		"outlier":{"consecutive":1,"success_rate":1,"time":"1s","max_share":1},"panic_threshold":1,"slow_start":"1s","proxy_protocol":"v1"}`)
	if made.status != 201 {
		t.Fatalf("got %d %s", made.status, made.body)
	}
	if grpc := ask(t, "PATCH", addr+"/all", `{"health_check":{"type":"grpc","service":"s"}}`); grpc.status != 200 {
		t.Fatalf("got %d %s", grpc.status, grpc.body)
	}
	rows := state.Reference()
	for i := range rows {
		path := rows[len(rows)-1-i][0] // some need those before them
		if off := state.Off(path); off != nil {
			takeAway(t, addr+"/all", strings.Split(path, "."), off)
		}
	}
}

func takeAway(t *testing.T, url string, path []string, off any) {
	t.Helper()
	if !has(t, ask(t, "GET", url, "").body, path) {
		t.Fatalf("the pool has no %v", path)
	}
	word, err := json.Marshal(off)
	if err != nil {
		t.Fatal(err)
	}
	body := `{"` + strings.Join(path, `":{"`) + `":` + string(word) + strings.Repeat("}", len(path))
	if got := ask(t, "PATCH", url, body); got.status != 200 || has(t, got.body, path) {
		t.Errorf("%s: got %d %s, want it gone", body, got.status, got.body)
	}
}

// has says whether a JSON object has something at a path of keys.
func has(t *testing.T, text string, path []string) bool {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for _, key := range path {
		object, _ := value.(map[string]any)
		if value = object[key]; value == nil {
			return false
		}
	}
	return true
}
