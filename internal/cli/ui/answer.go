package ui

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/template"

	"github.com/bangervm/banger/api"
)

// Structured says whether the answer goes out as JSON or by template, not as
// text.
func (c *Console) Structured() bool { return c.JSON || c.Format != "" }

// Answer prints v, one JSON document under --json, by template under --format.
// A slice is an array, [] when empty; by template each element is a line. With
// neither asked for it calls text.
func (c *Console) Answer(v any, text func() error) error {
	switch {
	case c.Format != "":
		return c.template(v)
	case c.JSON:
		return c.document(v)
	}
	return text()
}

// Line prints v as one line of a followed output: compact JSON, template, or
// text.
func (c *Console) Line(v any, text func() string) error {
	switch {
	case c.Format != "":
		return c.template(v)
	case c.JSON:
		b, err := encode(v, "")
		if err != nil {
			return err
		}
		return c.write(b)
	}
	return c.write([]byte(text() + "\n"))
}

// Println prints one line of text on stdout.
func (c *Console) Println(s string) error { return c.write([]byte(s + "\n")) }

func (c *Console) document(v any) error {
	if rv := reflect.ValueOf(v); rv.Kind() == reflect.Slice && rv.IsNil() {
		return c.write([]byte("[]\n"))
	}
	b, err := encode(v, "  ")
	if err != nil {
		return err
	}
	return c.write(b)
}

func encode(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return nil, api.Errorf(api.KindInternal, "cannot encode the answer: %w", err)
	}
	return b.Bytes(), nil
}

func (c *Console) write(b []byte) error {
	if _, err := c.Out.Write(b); err != nil {
		return api.Errorf(api.KindInternal, "cannot write the answer: %w", err)
	}
	return nil
}

// ParseFormat checks a --format template, before anything is done.
func ParseFormat(format string) error {
	_, err := parseFormat(format)
	return err
}

func parseFormat(format string) (*template.Template, error) {
	t, err := template.New("format").Option("missingkey=error").Funcs(template.FuncMap{
		"json": func(v any) (string, error) {
			b, err := json.Marshal(v)
			return string(b), err
		},
		"join": func(sep string, v []any) string {
			words := make([]string, len(v))
			for i := range v {
				words[i] = fmt.Sprint(v[i])
			}
			return strings.Join(words, sep)
		},
		"upper": strings.ToUpper,
		"lower": strings.ToLower,
	}).Parse(format)
	if err != nil {
		return nil, api.Errorf(api.KindInvalid, "cannot use --format: %w", err)
	}
	return t, nil
}

// template prints v by the template, over the object as JSON shows it.
func (c *Console) template(v any) error {
	t, err := parseFormat(c.Format)
	if err != nil {
		return err
	}
	plain, err := asJSON(v)
	if err != nil {
		return err
	}
	items, isList := plain.([]any)
	if !isList {
		items = []any{plain}
	}
	for _, item := range items {
		var b bytes.Buffer
		if err := t.Execute(&b, item); err != nil {
			return api.Errorf(api.KindInvalid, "cannot use --format: %w", err)
		}
		b.WriteByte('\n')
		if err := c.write(b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// asJSON turns v into maps, slices, strings, int64 and float64.
func asJSON(v any) (any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, api.Errorf(api.KindInternal, "cannot encode the answer: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var out any
	if err := d.Decode(&out); err != nil && err != io.EOF {
		return nil, api.Errorf(api.KindInternal, "cannot encode the answer: %w", err)
	}
	return numbers(out), nil
}

func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64() // a number by the encoder's own word
		return f
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}
