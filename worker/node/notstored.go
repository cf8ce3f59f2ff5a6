package node

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/gradefleet/gradefleet/worker/internal/verdict"
)

// notStored adds to a job's answer that what the job left in its session can't be
// stored and is undone: as not_stored, and at the end of a command's stderr. That
// is what the job did, no fault of the platform, so the answer stands.
func notStored(body []byte, why string) []byte {
	d := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if tok, err := d.ReadToken(); err != nil || tok.Kind() != '{' {
		return body
	}
	quoted := verdict.AppendText(nil, why)
	out := make([]byte, 0, len(body)+3*len(quoted)+64)
	copied := 0
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return body
		}
		stderr := name.String() == "stderr"
		value, err := d.ReadValue()
		if err != nil {
			return body
		}
		if stderr && value[0] == '"' {
			end := int(d.InputOffset()) - 1 // of the text, before its quote
			out = append(out, body[copied:end]...)
			if len(value) > 2 {
				out = append(out, `\n`...)
			}
			out = append(out, quoted[1:len(quoted)-1]...)
			copied = end
		}
	}
	end := int(d.InputOffset())
	out = append(append(out, body[copied:end]...), `,"not_stored":`...)
	return append(append(out, quoted...), body[end:]...)
}
