package admin

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// What an error says would take a setting away does.
func TestOffTakesSettingsAway(t *testing.T) {
	addr := "http://" + serve(t, webPool(t), Config{}) + "/v1/pools"
	made := ask(t, "POST", addr, `{"name":"all","strategy":"hash","hash_on":"path","health_check":{"type":"http","unhealthy_interval":"1s","method":"POST",
		"host":"h","status":"200","body":"b","tls":"on","port":81,"service":"s"},"timeouts":{"try":"1s","hedge":"1s"},
		"limits":{"connections":1,"pending":1,"failures":1,"open":"1s"},"sticky":{"cookie":"c","drain":"move"},
		"outlier":{"consecutive":1,"success_rate":1,"time":"1s","max_share":1},"panic_threshold":1,"slow_start":"1s","proxy_protocol":"v1"}`)
	if made.status != 201 {
		t.Fatalf("got %d %s", made.status, made.body)
	}
	var walk func(spec reflect.Type, path []string)
	walk = func(spec reflect.Type, path []string) {
		for i := range spec.NumField() {
			field := spec.Field(spec.NumField() - 1 - i) // some need those before them
			key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			at := append(slices.Clone(path), key)
			off, hasOff := field.Tag.Lookup("off")
			switch {
			case field.Type.Kind() == reflect.Struct:
				walk(field.Type, at)
			case hasOff:
				takeAway(t, addr+"/all", at, off, field.Type)
			}
		}
	}
	walk(reflect.TypeFor[PoolSpec](), nil)
}

func takeAway(t *testing.T, url string, path []string, off string, kind reflect.Type) {
	t.Helper()
	if !has(t, ask(t, "GET", url, "").body, path) {
		t.Fatalf("the pool has no %v", path)
	}
	if kind != reflect.TypeFor[int]() {
		off = `"` + off + `"`
	}
	body := `{"` + strings.Join(path, `":{"`) + `":` + off + strings.Repeat("}", len(path))
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
