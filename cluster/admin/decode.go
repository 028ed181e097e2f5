package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"lbnode/state"
)

// maxBody is the size of the largest request body, in bytes, but for a snapshot's.
const maxBody = 1 << 20

// readBody reads the JSON object in the body of r into the struct that into
// points at. In it, a zero field then means one that was not given: what is
// given as null, "", 0 or "0s" is refused, for the cluster could not tell it
// from what was left out.
func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	if err := checkContentType(r); err != nil {
		return err
	}
	data, err := readAll(w, r)
	if err != nil {
		return err
	}
	var object json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil {
		return badJSON(err)
	}
	if object[0] != '{' {
		return badRequest("", "the body is not a JSON object", `send an object such as {"name": "web"}`)
	}
	return fill(object, reflect.ValueOf(into).Elem(), "")
}

// readAll returns the body of r, which can be read again afterwards.
func readAll(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	most := int64(maxBody)
	if r.URL.Path == snapshotPath {
		most = maxSnapshot
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, &Problem{Status: http.StatusRequestEntityTooLarge, Detail: fmt.Sprintf("the body is larger than %d bytes", most)}
	}
	if err != nil {
		return nil, badRequest("", "cannot read the body: "+err.Error(), "")
	}
	r.Body = io.NopCloser(bytes.NewReader(data))
	return data, nil
}

func checkContentType(r *http.Request) error {
	given := r.Header.Get("Content-Type")
	kind, _, _ := mime.ParseMediaType(given)
	if kind == "application/json" || kind == "application/merge-patch+json" && r.Method == http.MethodPatch {
		return nil
	}
	return &Problem{
		Status: http.StatusUnsupportedMediaType,
		Detail: fmt.Sprintf("the body has the content type %q, not JSON", given),
		Hint:   "send it with the header Content-Type: application/json",
	}
}

func badJSON(err error) error {
	detail := "the body is not valid JSON: " + err.Error()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		detail = fmt.Sprintf("the body is not valid JSON at byte %d: %s", syntax.Offset, syntax)
	}
	return badRequest("", detail, "")
}

// fill sets v, which stands at path in the body, to the JSON value in raw.
func fill(raw json.RawMessage, v reflect.Value, path string) error {
	switch {
	case raw[0] == 'n':
		return invalid(path, "must not be null; to leave a value as it is, leave it out")
	case v.Kind() == reflect.Struct:
		return fillObject(raw, v, path)
	case v.Kind() == reflect.Slice:
		return fillList(raw, v, path)
	}
	return fillValue(raw, v, path)
}

func fillObject(raw json.RawMessage, v reflect.Value, path string) error {
	if raw[0] != '{' {
		return invalid(path, "must be an object, not %s", clip(raw))
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.Token() // the brace
	readBefore := readHere(raw, v.Type())
	var given []string
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return badJSON(err)
		}
		key := token.(string)
		if slices.Contains(given, key) {
			return badRequest(join(path, key), fmt.Sprintf("%q is given twice", join(path, key)), "")
		}
		given = append(given, key)
		if readBefore && isClusters(v.Type(), key) {
			var value json.RawMessage
			if err := decoder.Decode(&value); err != nil {
				return badJSON(err)
			}
			continue
		}
		if err := fillKey(decoder, v, path, key); err != nil {
			return err
		}
	}
	return nil
}

// readHere says whether a backend that is written carries all that only reading it gives: then
// it is sent back as it was, and what belongs to the cluster is passed over.
func readHere(raw json.RawMessage, t reflect.Type) bool {
	var backend struct{ ID, Health, Since *string }
	return t == reflect.TypeFor[BackendSpec]() && json.Unmarshal(raw, &backend) == nil &&
		backend.ID != nil && backend.Health != nil && backend.Since != nil
}

// isClusters says whether a key is there in reading only.
func isClusters(t reflect.Type, key string) bool {
	return t == reflect.TypeFor[BackendSpec]() && !slices.Contains(keysOf(t), key) && slices.Contains(keysOf(reflect.TypeFor[Backend]()), key)
}

// fillKey sets the field of v that belongs to key to the decoder's next value.
func fillKey(decoder *json.Decoder, v reflect.Value, path, key string) error {
	at, found := fieldOf(v.Type(), key)
	if !found {
		return unknownKey(v.Type(), path, key)
	}
	var value json.RawMessage
	if err := decoder.Decode(&value); err != nil {
		return badJSON(err)
	}
	field := v.FieldByIndex(at.Index)
	isNull, isObject := value[0] == 'n', field.Kind() == reflect.Struct
	if !isNull {
		if err := fill(value, field, join(path, key)); err != nil {
			return err
		}
	}
	if isNull || field.IsZero() && at.Tag.Get("zero") != "allowed" && !isObject {
		return invalid(join(path, key), "must not be %s; %sto leave it as it is, leave it out", clip(value), insteadOfZero(at, join(path, key)))
	}
	return nil
}

// insteadOfZero says what somebody may want who gives a field no value, and how that is said.
func insteadOfZero(field reflect.StructField, path string) string {
	if hint := field.Tag.Get("zero"); hint != "" && hint != "allowed" {
		return hint + "; "
	}
	switch off := state.Off(path).(type) {
	case string:
		return "to take it away give " + strconv.Quote(off) + "; "
	case int:
		return "to take it away give " + strconv.Itoa(off) + "; "
	}
	return ""
}

func fillList(raw json.RawMessage, v reflect.Value, path string) error {
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		return invalid(path, "must be a list, not %s", clip(raw))
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	for i, item := range items {
		if err := fill(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i)); err != nil {
			return err
		}
	}
	return nil
}

func fillValue(raw json.RawMessage, v reflect.Value, path string) error {
	err := json.Unmarshal(raw, v.Addr().Interface())
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) {
		return invalid(path, "must be %s, not %s", describe(v), clip(raw))
	}
	if err != nil {
		return invalid(path, "%s", err)
	}
	return nil
}

func describe(v reflect.Value) string {
	if _, ok := v.Interface().(state.Duration); ok {
		return `a duration such as "2s" or "500ms"`
	}
	switch v.Interface().(type) {
	case int:
		return "an integer"
	case *bool:
		return "true or false"
	case map[string]string:
		return "an object whose values are strings"
	}
	return "a string"
}

// fieldOf finds the field of a struct, or of one embedded in it, that has a JSON name.
func fieldOf(t reflect.Type, key string) (reflect.StructField, bool) {
	for _, field := range reflect.VisibleFields(t) {
		if nameOf(field) == key && !field.Anonymous {
			return field, true
		}
	}
	return reflect.StructField{}, false
}

// keysOf lists the JSON names of a struct's fields, in their order.
func keysOf(t reflect.Type) []string {
	var keys []string
	for _, field := range reflect.VisibleFields(t) {
		if !field.Anonymous {
			keys = append(keys, nameOf(field))
		}
	}
	return keys
}

func nameOf(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	return name
}

func unknownKey(t reflect.Type, path, key string) error {
	if isClusters(t, key) {
		return invalid(join(path, key), "belongs to the cluster and cannot be written: leave it out")
	}
	name := clip([]byte(join(path, key)))
	return badRequest(name, fmt.Sprintf("unknown key %q", name), hintAt(key, keysOf(t)))
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// clip shortens what an answer repeats of a request.
func clip(raw []byte) string {
	const most = 64
	if len(raw) > most {
		return strings.ToValidUTF8(string(raw[:most]), "") + "…"
	}
	return string(raw)
}
