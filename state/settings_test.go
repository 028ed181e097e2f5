package state

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestEachSettingHasItsRow: the table has a row for each field of Settings, in their order,
// whose rule looks at that field.
func TestEachSettingHasItsRow(t *testing.T) {
	var fields, rows []string
	var s Settings
	eachField("", reflect.ValueOf(&s).Elem(), func(path string, field reflect.Value) {
		fields = append(fields, path[1:])
		give(field)
		s.Each(func(path string, value any) {
			rows = append(rows, path)
			if !reflect.DeepEqual(value, field.Interface()) {
				t.Errorf("%s: got %v, want %v", path, value, field)
			}
		})
		field.SetZero()
	})
	if !slices.Equal(rows, fields) {
		t.Errorf("got rows for\n%v, want them for\n%v", rows, fields)
	}
}

// wordsOf4 are the words that version 4 knows. One that came later needs a later version, or
// older binaries would make something else of it.
var wordsOf4 = map[string]string{
	"strategy":            "[{round_robin 1} {random 4} {least_connections 4} {p2c 4} {least_time 4} {hash 4}]",
	"health_check.type":   "[{http 1} {tcp 1} {grpc 4} {agent 4}]",
	"health_check.method": "[{HEAD 4} {OPTIONS 4} {POST 4}]",
	"health_check.tls":    "[{on 4} {off 4} {insecure 4}]",
	"sticky.drain":        "[{move 4}]",
	"when_all_down":       "[{reject 1} {fail_open 1}]",
	"proxy_protocol":      "[{v1 3} {v2 3}]",
}

func TestNewWordsNeedANewVersion(t *testing.T) {
	for _, row := range settings {
		choice, ok := row.rule.(choice)
		if !ok {
			continue
		}
		if row.since <= 4 {
			old := slices.DeleteFunc(slices.Clone(choice.words), func(w word) bool { return w.since > 4 })
			if got, want := fmt.Sprint(old), wordsOf4[row.path]; got != want {
				t.Errorf("%s: version 4 and those before are said to know %s, and know %s", row.path, got, want)
			}
		}
		for _, w := range choice.words {
			if w.since < row.since || w.since > Version {
				t.Errorf("%s: the word %s is of version %d, want one from the setting's, %d, to the newest, %d", row.path, w.name, w.since, row.since, Version)
			}
		}
	}
}

// TestDefaultsAreValid: what a pool has that names nothing may be written, in version 1.
func TestDefaultsAreValid(t *testing.T) {
	s := DefaultSettings()
	if err := s.validate(); err != nil {
		t.Error(err)
	}
	if got := s.version(); got != 1 {
		t.Errorf("got version %d, want 1", got)
	}
}

func TestSettingsWithoutEffect(t *testing.T) {
	tcp := DefaultSettings()
	tcp.HealthCheck.Type, tcp.HealthCheck.Path = CheckTCP, "/healthz"
	for _, test := range []struct {
		name   string
		before Settings
		change Settings
		field  string // empty: it may be made
	}{
		{"a path for tcp", DefaultSettings(), Settings{HealthCheck: HealthCheck{Type: CheckTCP, Path: "/healthz"}}, "health_check.path"},
		{"a path for the tcp of before", tcp, Settings{HealthCheck: HealthCheck{Path: "/up"}}, "health_check.path"},
		{"the path of before", tcp, Settings{HealthCheck: HealthCheck{Path: "/healthz", Rise: 3}}, ""},
		{"the default path", DefaultSettings(), Settings{HealthCheck: HealthCheck{Type: CheckTCP, Path: "/"}}, ""},
		{"a path with its type", tcp, Settings{HealthCheck: HealthCheck{Type: CheckHTTP, Path: "/up"}}, ""},
		{"another type", DefaultSettings(), Settings{HealthCheck: HealthCheck{Type: CheckTCP}}, ""},
		{"headers for grpc", DefaultSettings(), Settings{HealthCheck: HealthCheck{Type: CheckGRPC, Headers: map[string]string{"X": "1"}}}, "health_check.headers"},
		{"a host for grpc", DefaultSettings(), Settings{HealthCheck: HealthCheck{Type: CheckGRPC, Host: "h"}}, ""},
		{"a service for http", DefaultSettings(), Settings{HealthCheck: HealthCheck{Service: "s"}}, "health_check.service"},
		{"no service for http", DefaultSettings(), Settings{HealthCheck: HealthCheck{Service: CheckNone}}, ""},
		{"a time of no ejection", DefaultSettings(), Settings{Outlier: Outlier{Time: seconds(1)}}, "outlier.time"},
		{"a time of an ejection", DefaultSettings(), Settings{Outlier: Outlier{SuccessRate: 30, Time: seconds(1)}}, ""},
		{"a circuit that never opens", DefaultSettings(), Settings{Limits: Limits{Open: seconds(1)}}, "limits.open"},
	} {
		err := test.change.Effect(test.before)
		if got := err; (got == nil) != (test.field == "") || got != nil && got.Field != test.field {
			t.Errorf("%s: got %v, want field %q at fault", test.name, got, test.field)
		}
	}
}

// TestReferenceIsUpToDate: SETTINGS.md has what the table says. -update writes it anew.
func TestReferenceIsUpToDate(t *testing.T) {
	want := "# The settings of a pool\n\nWritten from the table in `settings.go` and `check.go`: " +
		"`go test ./state -run Reference -update` writes it anew.\n\n" +
		"`PATCH /v1/pools/NAME` changes those that it names. The word `none`, or the one in the table, takes away what may be absent.\n" +
		"`hash_on` goes with the strategy `hash`, and `sticky.drain` with its cookie.\n\n" +
		"| setting | values | without it | what it says |\n|---|---|---|---|\n"
	for _, line := range Reference() {
		values := strings.ReplaceAll(line[1], "|", "\\|")
		want += fmt.Sprintf("| `%s` | %s | %s | %s |\n", line[0], values, line[2], line[3])
	}
	if *update {
		if err := os.WriteFile("SETTINGS.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := string(readGolden(t, "SETTINGS.md")); got != want {
		t.Error("SETTINGS.md says something else than the table; go test ./state -run Reference -update writes it anew")
	}
}
