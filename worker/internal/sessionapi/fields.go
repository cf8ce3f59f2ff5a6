package sessionapi

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/gradefleet/gradefleet/worker/internal/pyvalue"
)

// fields are those of the documented bodies of session operations; the gateway
// has checked which are there and of what type.
type fields struct {
	relPath, oldPath, newPath string
	content                   []byte // raw JSON
	encoding                  string
}

func parseFields(body []byte) (f fields, err error) {
	if len(body) == 0 {
		return f, nil
	}
	d := jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if tok, err := d.ReadToken(); err != nil || tok.Kind() != '{' {
		return f, &refusal{422, "body: want an object"}
	}
	for d.PeekKind() != '}' {
		tok, err := d.ReadToken()
		if err != nil {
			return f, &refusal{422, "body: " + err.Error()}
		}
		name := tok.String()
		value, err := d.ReadValue()
		if err != nil {
			return f, &refusal{422, "body: " + err.Error()}
		}
		to := map[string]*string{"rel_path": &f.relPath, "old_path": &f.oldPath, "new_path": &f.newPath, "encoding": &f.encoding}[name]
		switch {
		case name == "content":
			at := int(d.InputOffset())
			f.content = body[at-len(value) : at]
		case to != nil && value[0] == '"':
			if *to, err = pyvalue.UnquoteJSON(value); err != nil {
				return f, &refusal{422, fmt.Sprintf("body.%s: %v", name, err)}
			}
		}
	}
	return f, nil
}

// data is the content to write, in bytes.
func (f fields) data() ([]byte, error) {
	if len(f.content) == 0 || f.content[0] != '"' {
		return nil, &refusal{422, "body.content: want a string"}
	}
	text, err := pyvalue.UnquoteJSON(f.content)
	if err != nil {
		return nil, &refusal{422, "body.content: " + err.Error()}
	}
	if f.encoding == "base64" {
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, &refusal{422, "body.content: not base64, as body.encoding says: " + err.Error()}
		}
		return data, nil
	}
	if !utf8.ValidString(text) {
		return nil, &refusal{422, "body.content: has a lone surrogate, which UTF-8 can't hold; send bytes with \"encoding\": \"base64\""}
	}
	return []byte(text), nil
}
