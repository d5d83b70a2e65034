// Package openapi writes an OpenAPI 3.1 document from a table of routes and the
// Go types of their requests and replies, by reflection. It owns the mapping
// from Go to JSON Schema and knows no route of banger's; the daemon hands its
// table in. Start at Document.
package openapi
