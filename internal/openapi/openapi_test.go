package openapi

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type colour string

type node struct {
	Name   string            `json:"name"`
	Colour colour            `json:"colour,omitempty"`
	Next   *node             `json:"next"`
	At     *time.Time        `json:"at"`
	Labels map[string]string `json:"labels"`
	Raw    json.RawMessage   `json:"raw,omitempty"`
	Bytes  []byte            `json:"bytes,omitempty"`
	Count  int64             `json:"count"`
	hidden int
}

func TestSchema(t *testing.T) {
	t.Parallel()
	s := schemas{enums: map[reflect.Type][]string{reflect.TypeFor[colour](): {"red"}}, made: object{}}
	_ = node{}.hidden
	if diff := cmp.Diff(object{"type": "array", "items": object{"$ref": "#/components/schemas/node"}}, s.of(reflect.TypeFor[[]node]())); diff != "" {
		t.Errorf("slice of a struct (-want +got):\n%s", diff)
	}
	want := object{"node": object{
		"type": "object",
		"properties": object{
			"name":   object{"type": "string"},
			"colour": object{"type": "string", "examples": []string{"red"}},
			"next":   object{"anyOf": []object{{"$ref": "#/components/schemas/node"}, {"type": "null"}}},
			"at":     object{"type": []string{"string", "null"}, "format": "date-time"},
			"labels": object{"type": "object", "additionalProperties": object{"type": "string"}},
			"raw":    object{},
			"bytes":  object{"type": "string", "contentEncoding": "base64"},
			"count":  object{"type": "integer", "format": "int64"},
		},
		"required": []string{"name", "next", "at", "labels", "count"},
	}}
	if diff := cmp.Diff(want, s.made); diff != "" {
		t.Errorf("schemas (-want +got):\n%s", diff)
	}
}

func TestDocument(t *testing.T) {
	t.Parallel()
	type query struct {
		For []string `query:"for" doc:"what"`
	}
	type failure struct {
		Error string `json:"error"`
	}
	routes := []Route{
		{"GET", "/v1/nodes/{node}", "show one", query{}, Reply{JSON: node{}}},
		{"POST", "/v1/nodes", "make one", node{}, Reply{Status: 202, JSON: node{}}},
		{"GET", "/v1/talk", "talk", node{}, Reply{Upgrade: true}},
	}
	one := Document(Info{Title: "t", Version: "1", Error: failure{}}, routes)
	two := Document(Info{Title: "t", Version: "1", Error: failure{}}, routes)
	if string(one) != string(two) {
		t.Error("two documents of one table differ")
	}
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string           `json:"operationId"`
			Parameters  []map[string]any `json:"parameters"`
			RequestBody map[string]any   `json:"requestBody"`
			Responses   map[string]any   `json:"responses"`
			First       map[string]any   `json:"x-websocket-first-message"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(one, &doc); err != nil {
		t.Fatal(err)
	}
	get := doc.Paths["/v1/nodes/{node}"]["get"]
	if get.OperationID != "get_nodes_node" || len(get.Parameters) != 2 || get.RequestBody != nil || get.Responses["200"] == nil {
		t.Errorf("get = %+v", get)
	}
	if post := doc.Paths["/v1/nodes"]["post"]; post.RequestBody == nil || post.Responses["202"] == nil || post.Responses["default"] == nil {
		t.Errorf("post = %+v", post)
	}
	if talk := doc.Paths["/v1/talk"]["get"]; talk.First == nil || talk.RequestBody != nil || talk.Responses["101"] == nil {
		t.Errorf("talk = %+v", talk)
	}
}
