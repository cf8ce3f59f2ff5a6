package api

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/goccy/go-yaml"
)

// Spec is the description of the API, in OpenAPI 3.1, written by hand.
//
//go:embed openapi.yaml
var Spec []byte

//go:embed docs.html
var docsTemplate string

// openAPI is GET /openapi.yaml.
func (a *api) openAPI(c *gin.Context) { a.write(c, http.StatusOK, "application/yaml", Spec) }

// docsPage is GET /docs.
func (a *api) docsPage(c *gin.Context) {
	c.Header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	a.write(c, http.StatusOK, "text/html; charset=utf-8", a.docs)
}

// page is what the template shows.
type page struct {
	Title, Version, Summary string
	Description             template.HTML
	Groups                  []group
}

type group struct {
	Name, Description string
	Operations        []operation
}

type operation struct {
	ID, Method, Path, Summary string
	Description               template.HTML
	Parameters, Fields        []param
	Example, Curl             string
	Answers                   []reply
}

type param struct {
	Name, In, Type string
	Description    template.HTML
	Required       bool
}

type reply struct {
	Status      string
	Description template.HTML
	Fields      []param
	Example     string
}

// renderDocs makes the page of the description. It knows as much of OpenAPI as
// the description uses.
func renderDocs(spec []byte) ([]byte, error) {
	var root yaml.MapSlice
	if err := yaml.UnmarshalWithOptions(spec, &root, yaml.UseOrderedMap()); err != nil {
		return nil, fmt.Errorf("parse description: %w", err)
	}
	d := node{root}
	info := d.at("info")
	p := page{
		Title: info.text("title"), Version: info.text("version"), Summary: info.text("summary"),
		Description: prose(info.text("description")),
	}
	for _, tag := range d.at("tags").list() {
		p.Groups = append(p.Groups, group{Name: tag.text("name"), Description: tag.text("description")})
	}
	for _, path := range d.at("paths").entries() {
		for _, method := range path.value.entries() {
			op, err := d.operation(path.key, method.key, method.value)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", method.key, path.key, err)
			}
			tag := ""
			for _, t := range method.value.at("tags").list() {
				tag, _ = t.v.(string)
			}
			i := slices.IndexFunc(p.Groups, func(g group) bool { return g.Name == tag })
			if i < 0 {
				return nil, fmt.Errorf("%s %s: tag %q is not described", method.key, path.key, tag)
			}
			p.Groups[i].Operations = append(p.Groups[i].Operations, op)
		}
	}
	t, err := template.New("docs").Parse(docsTemplate)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, p); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func (d node) operation(path, method string, n node) (operation, error) {
	op := operation{
		ID: n.text("operationId"), Method: strings.ToUpper(method), Path: path,
		Summary: n.text("summary"), Description: prose(n.text("description")),
	}
	for _, p := range n.at("parameters").list() {
		p = d.resolve(p)
		schema := d.resolve(p.at("schema"))
		op.Parameters = append(op.Parameters, param{
			Name: p.text("name"), In: p.text("in"), Type: kind(schema),
			Description: prose(p.text("description")), Required: p.at("required").v == true,
		})
	}
	if body := n.at("requestBody").at("content").at("application/json"); body.v != nil {
		op.Fields = d.fields(body.at("schema"))
		var err error
		if op.Example, err = indent(body.at("example")); err != nil {
			return op, err
		}
		compact, err := json.Marshal(plain(body.at("example").v))
		if err != nil {
			return op, err
		}
		op.Curl = fmt.Sprintf("curl -s http://127.0.0.1:8080%s -d '%s'", path, strings.ReplaceAll(string(compact), "'", `'\''`))
	}
	for _, r := range n.at("responses").entries() {
		answer := d.resolve(r.value)
		a := reply{Status: r.key, Description: prose(answer.text("description"))}
		if content := answer.at("content").at("application/json"); content.v != nil {
			if strings.HasPrefix(r.key, "2") {
				a.Fields = d.fields(content.at("schema"))
			}
			var err error
			if a.Example, err = indent(content.at("example")); err != nil {
				return op, err
			}
		}
		op.Answers = append(op.Answers, a)
	}
	return op, nil
}

// fields lists the properties of a schema, those of nested ones by their path.
func (d node) fields(schema node) []param {
	schema = d.resolve(schema)
	var required []string
	for _, r := range schema.at("required").list() {
		name, _ := r.v.(string)
		required = append(required, name)
	}
	var all []param
	for _, p := range schema.at("properties").entries() {
		s := d.resolve(p.value)
		all = append(all, param{
			Name: p.key, Type: kind(s), Description: prose(s.text("description")),
			Required: slices.Contains(required, p.key),
		})
		within, prefix := s, p.key+"."
		if items := s.at("items"); items.v != nil {
			within, prefix = items, p.key+"[]."
		}
		for _, f := range d.fields(within) {
			f.Name = prefix + f.Name
			all = append(all, f)
		}
	}
	return all
}

// kind names a schema's type: "string", "utf-8 | base64", "any".
func kind(schema node) string {
	join := func(list []node) string {
		var names []string
		for _, n := range list {
			if n.v != nil && n.v != "null" {
				names = append(names, fmt.Sprint(n.v))
			}
		}
		return strings.Join(names, " | ")
	}
	if enum := schema.at("enum").list(); enum != nil {
		return join(enum)
	}
	if types := schema.at("type").list(); types != nil {
		return join(types)
	}
	if t := schema.text("type"); t != "" {
		return t
	}
	return "any"
}

// prose turns the little Markdown of the description (paragraphs and `code`)
// into HTML.
func prose(text string) template.HTML {
	var b strings.Builder
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString("</p><p>")
		}
		for j, part := range strings.Split(paragraph, "`") {
			if j%2 == 1 {
				b.WriteString("<code>" + template.HTMLEscapeString(part) + "</code>")
			} else {
				b.WriteString(template.HTMLEscapeString(part))
			}
		}
	}
	return template.HTML(b.String())
}
