// Package spectest holds answers against the API's description: a status, a
// content type, a header or a body that openapi.yaml does not have is an error.
// Only tests import it.
package spectest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// resource is what the description is called inside the schema compiler.
const resource = "openapi.json"

// Spec is a parsed description. Its methods may be called from any goroutine.
type Spec struct {
	root map[string]any

	mu       sync.Mutex // of what follows
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema // by JSON pointer
}

// Parse reads a description.
func Parse(text []byte) (*Spec, error) {
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, fmt.Errorf("convert description: %w", err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		return nil, fmt.Errorf("parse description: %w", err)
	}
	root, ok := doc.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("parse description: want an object, got %T", doc)
	}
	s := &Spec{root: root, compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	s.compiler.AssertFormat()
	if err := s.compiler.AddResource(resource, doc); err != nil {
		return nil, fmt.Errorf("take in description: %w", err)
	}
	return s, nil
}

// place is a value of the description and the JSON pointer to it.
type place struct {
	value   any
	pointer string
}

func (s *Spec) at(p place, keys ...string) place {
	for _, key := range keys {
		m, _ := p.value.(map[string]any)
		p.value = m[key]
		p.pointer += "/" + strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
		if m, ok := p.value.(map[string]any); ok {
			if ref, ok := m["$ref"].(string); ok && !strings.HasPrefix(ref, "#/components/schemas/") {
				p = s.at(place{s.root, ""}, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
			}
		}
	}
	return p
}

func keys(v any) []string {
	m, _ := v.(map[string]any)
	all := make([]string, 0, len(m))
	for key := range m {
		all = append(all, key)
	}
	slices.Sort(all)
	return all
}

// Operations lists the operations as "GET /path", sorted.
func (s *Spec) Operations() []string {
	var all []string
	for _, path := range keys(s.root["paths"]) {
		for _, method := range keys(s.at(place{s.root, ""}, "paths", path).value) {
			all = append(all, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(all)
	return all
}

// Statuses lists the statuses of an operation ("GET /path"), sorted.
func (s *Spec) Statuses(operation string) []string {
	method, path, _ := strings.Cut(operation, " ")
	return keys(s.at(place{s.root, ""}, "paths", path, strings.ToLower(method), "responses").value)
}

// Answer checks an answer to a request. Paths and methods that the description
// doesn't have must be answered 404 and 405 with a detail.
func (s *Spec) Answer(method, path string, status int, header http.Header, body []byte) error {
	path = s.template(path)
	answer := s.at(place{s.root, ""}, "paths", path, strings.ToLower(method), "responses", fmt.Sprint(status))
	if s.at(place{s.root, ""}, "paths", path, strings.ToLower(method)).value == nil && (status == 404 || status == 405) {
		answer = s.at(place{s.root, ""}, "components", "responses", "NotFound")
	}
	if answer.value == nil {
		return fmt.Errorf("%s %s: status %d is not described", method, path, status)
	}
	for _, name := range keys(s.at(answer, "headers").value) {
		if header.Get(name) == "" {
			return fmt.Errorf("%s %s: %d without the header %s", method, path, status, name)
		}
	}
	media, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return fmt.Errorf("%s %s: content type: %w", method, path, err)
	}
	content := s.at(answer, "content", media)
	if content.value == nil {
		return fmt.Errorf("%s %s: %d with content type %s is not described", method, path, status, media)
	}
	var value any = string(body)
	if media == "application/json" {
		if value, err = jsonschema.UnmarshalJSON(bytes.NewReader(body)); err != nil {
			return fmt.Errorf("%s %s: %d with a body that is not JSON: %w", method, path, status, err)
		}
	}
	if err := s.check(s.at(content, "schema"), value); err != nil {
		return fmt.Errorf("%s %s: %d: %w", method, path, status, err)
	}
	return nil
}

// template is the path of the description that a request's path belongs to; the
// path itself if there is none.
func (s *Spec) template(path string) string {
	parts := strings.Split(path, "/")
	for _, known := range keys(s.root["paths"]) {
		pattern := strings.Split(known, "/")
		if len(pattern) == len(parts) {
			fits := true
			for i, p := range pattern {
				fits = fits && (p == parts[i] || strings.HasPrefix(p, "{"))
			}
			if fits {
				return known
			}
		}
	}
	return path
}

// check holds a value against the schema at p.
func (s *Spec) check(p place, value any) error {
	schema, err := s.schema(p.pointer)
	if err != nil {
		return fmt.Errorf("compile schema: %w", err)
	}
	if err := schema.Validate(value); err != nil {
		text, _ := json.Marshal(value)
		return fmt.Errorf("%.500s: %w", text, err)
	}
	return nil
}

func (s *Spec) schema(pointer string) (*jsonschema.Schema, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if schema := s.schemas[pointer]; schema != nil {
		return schema, nil
	}
	schema, err := s.compiler.Compile(resource + "#" + pointer)
	if err == nil {
		s.schemas[pointer] = schema
	}
	return schema, err
}

// Examples checks every example of a request or an answer against its schema,
// and that every JSON content has one. It returns how many there are.
func (s *Spec) Examples() (int, error) {
	n := 0
	content := func(p place) error {
		for _, media := range keys(s.at(p, "content").value) {
			c := s.at(p, "content", media)
			example, ok := c.value.(map[string]any)["example"]
			if !ok {
				if media == "application/json" {
					return fmt.Errorf("%s has no example", c.pointer)
				}
				continue
			}
			n++
			if err := s.check(s.at(c, "schema"), example); err != nil {
				return fmt.Errorf("example at %s: %w", c.pointer, err)
			}
		}
		return nil
	}
	for _, operation := range s.Operations() {
		method, path, _ := strings.Cut(operation, " ")
		op := s.at(place{s.root, ""}, "paths", path, strings.ToLower(method))
		if err := content(s.at(op, "requestBody")); err != nil {
			return n, err
		}
		for _, status := range s.Statuses(operation) {
			if err := content(s.at(op, "responses", status)); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// Request checks a JSON request body of an operation ("POST /path").
func (s *Spec) Request(operation string, body []byte) error {
	method, path, _ := strings.Cut(operation, " ")
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("body is not JSON: %w", err)
	}
	return s.check(s.at(place{s.root, ""}, "paths", path, strings.ToLower(method), "requestBody", "content", "application/json", "schema"), value)
}
