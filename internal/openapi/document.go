package openapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
)

// Route is one row of the table, as far as a reader of the document cares.
type Route struct {
	Method  string
	Path    string // with {name} for each path parameter
	Summary string
	// Request is a zero value of what the request holds: a struct whose fields
	// carry query tags is its query, any other type its JSON body; nil is none.
	Request any
	Reply   Reply
}

// Reply is what a route answers with when it succeeds.
type Reply struct {
	Status int // 0 is 200
	JSON   any // zero value of the body's type
	Events any // zero value of the data of each server-sent event
	Text   bool
	// Upgrade marks a WebSocket: Request is its first message, as text.
	Upgrade bool
}

// Info heads the document.
type Info struct {
	Title, Version, Description string
	// Error is a zero value of the body of every reply that is no success.
	Error any
	// Enums are the known values of named string types.
	Enums map[reflect.Type][]string
}

type object = map[string]any

// Document gives the document as indented JSON, the same bytes for the same
// table. It panics on a Go type that JSON cannot carry, which is a mistake in
// the table.
func Document(info Info, routes []Route) []byte {
	s := schemas{enums: info.Enums, made: object{}}
	failure := object{
		"description": "the error's kind, message and, where the fix is known, one next command",
		"content":     object{"application/json": object{"schema": s.of(reflect.TypeOf(info.Error))}},
	}
	paths := map[string]object{}
	for _, r := range routes {
		if paths[r.Path] == nil {
			paths[r.Path] = object{}
		}
		paths[r.Path][strings.ToLower(r.Method)] = s.operation(r)
	}
	b, err := json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info":    object{"title": info.Title, "version": info.Version, "description": info.Description},
		"servers": []object{{"url": "http://banger"}},
		"paths":   paths,
		"components": object{
			"schemas":   s.made,
			"responses": object{"Error": failure},
		},
	}, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("openapi: %v", err)) // only strings, slices and maps went in
	}
	return append(b, '\n')
}

func (s *schemas) operation(r Route) object {
	op := object{"operationId": operationID(r), "summary": r.Summary}
	if p := s.parameters(r); len(p) > 0 {
		op["parameters"] = p
	}
	if r.Request != nil && !isQuery(r.Request) {
		schema := s.of(reflect.TypeOf(r.Request))
		if r.Reply.Upgrade {
			op["x-websocket-first-message"] = schema
		} else {
			op["requestBody"] = object{"content": object{"application/json": object{"schema": schema}}}
		}
	}
	op["responses"] = object{statusOf(r.Reply): s.success(r.Reply), "default": object{"$ref": "#/components/responses/Error"}}
	return op
}

func (s *schemas) success(r Reply) object {
	content := object{}
	if r.JSON != nil {
		content["application/json"] = object{"schema": s.of(reflect.TypeOf(r.JSON))}
	}
	if r.Events != nil {
		// OpenAPI 3.1 has no word for the data of an event; 3.2's is itemSchema.
		content["text/event-stream"] = object{"x-item-schema": s.of(reflect.TypeOf(r.Events)), "schema": object{"type": "string"}}
	}
	if r.Text {
		content["text/plain"] = object{"schema": object{"type": "string"}}
	}
	if r.Upgrade {
		return object{"description": "the connection is a WebSocket from here"}
	}
	return object{"description": http.StatusText(code(r)), "content": content}
}

func (s *schemas) parameters(r Route) []object {
	var list []object
	for part := range strings.SplitSeq(r.Path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			list = append(list, object{"name": strings.TrimSuffix(name, "}"), "in": "path", "required": true, "schema": object{"type": "string"}})
		}
	}
	if r.Request == nil || !isQuery(r.Request) {
		return list
	}
	t := reflect.TypeOf(r.Request)
	for i := range t.NumField() {
		f := t.Field(i)
		p := object{"name": f.Tag.Get("query"), "in": "query", "schema": s.of(f.Type)}
		if d := f.Tag.Get("doc"); d != "" {
			p["description"] = d
		}
		list = append(list, p)
	}
	return list
}

// isQuery tells a query from a body by its tags.
func isQuery(v any) bool {
	t := reflect.TypeOf(v)
	return t.Kind() == reflect.Struct && t.NumField() > 0 && t.Field(0).Tag.Get("query") != ""
}

func code(r Reply) int {
	switch {
	case r.Upgrade:
		return http.StatusSwitchingProtocols
	case r.Status == 0:
		return http.StatusOK
	}
	return r.Status
}

func statusOf(r Reply) string { return fmt.Sprint(code(r)) }

// operationID names an operation by its method and path: GET /v1/vms/{vm} is
// get_vms_vm.
func operationID(r Route) string {
	words := []string{strings.ToLower(r.Method)}
	for part := range strings.SplitSeq(strings.TrimPrefix(r.Path, "/v1/"), "/") {
		words = append(words, strings.NewReplacer("{", "", "}", "", ".", "_").Replace(part))
	}
	return strings.Join(words, "_")
}
