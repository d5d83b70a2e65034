package daemon

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bangervm/banger/api"
)

// decodeBody reads a JSON body; an empty one is the zero value. It refuses
// unknown fields, anything after the value, and more than maxBody bytes.
func decodeBody[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	var v T
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTime)) // a reader without deadlines has none to miss
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return v, bodyError(err)
	}
	_ = rc.SetReadDeadline(time.Time{})
	if len(data) == 0 {
		return v, nil
	}
	if err := decodeJSON(data, &v); err != nil {
		return v, api.Errorf(api.KindInvalid, "cannot read request body: %w", err)
	}
	return v, nil
}

func bodyError(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return api.Errorf(api.KindInvalid, "cannot read request body: it is longer than %d bytes", tooLarge.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return api.Errorf(api.KindTimeout, "cannot read request body: it did not come within %s", bodyTime)
	}
	return api.Errorf(api.KindInvalid, "cannot read request body: %w", err)
}

// decodeJSON reads one JSON value strictly.
func decodeJSON(data []byte, v any) error {
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrongType):
		return errors.New("field " + strconv.Quote(wrongType.Field) + " wants " + wrongType.Type.String() + ", not " + wrongType.Value)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the JSON ends too early")
	case err != nil:
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return nil
}

// decodeQuery reads a query into the fields of T that carry a query tag: string,
// bool, int, int64 and []string. Unknown names and doubled single values are
// refused.
func decodeQuery[T any](r *http.Request) (T, error) {
	var v T
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return v, api.Errorf(api.KindInvalid, "cannot read query: %w", err)
	}
	s := reflect.ValueOf(&v).Elem()
	known := make([]string, s.NumField())
	for i := range s.NumField() {
		name := s.Type().Field(i).Tag.Get("query")
		known[i] = name
		if given, ok := values[name]; ok {
			if err := setField(s.Field(i), given); err != nil {
				return v, api.Errorf(api.KindInvalid, "cannot read query: %s %w", name, err)
			}
		}
	}
	for name := range values {
		if !slices.Contains(known, name) {
			return v, api.Errorf(api.KindInvalid, "cannot read query: unknown parameter %q (known: %s)", clip(name), strings.Join(known, ", "))
		}
	}
	return v, nil
}

func setField(f reflect.Value, given []string) error {
	if f.Kind() == reflect.Slice {
		f.Set(reflect.ValueOf(given))
		return nil
	}
	if len(given) != 1 {
		return errors.New("is given more than once")
	}
	switch f.Kind() {
	case reflect.String:
		f.SetString(given[0])
	case reflect.Bool:
		b, err := strconv.ParseBool(given[0])
		if err != nil {
			return errors.New("wants true or false, not " + strconv.Quote(clip(given[0])))
		}
		f.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(given[0], 10, 64)
		if err != nil || n < 0 {
			return errors.New("wants a whole number, not " + strconv.Quote(clip(given[0])))
		}
		f.SetInt(n)
	default:
		panic("daemon: no query can hold " + f.Type().String())
	}
	return nil
}
