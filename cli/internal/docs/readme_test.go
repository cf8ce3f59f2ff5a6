package docs

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestReadmeCommands runs the README's curl lines against the fleet that
// GRADEFLEET_URL names, and holds what they print against the block below each.
func TestReadmeCommands(t *testing.T) {
	url := os.Getenv("GRADEFLEET_URL")
	if url == "" {
		t.Skip("set GRADEFLEET_URL to a running fleet (make test-readme does)")
	}
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := fences(string(readme))
	ran := 0
	for i, b := range blocks {
		if b.kind != "sh" || !strings.Contains(b.text, "curl -s") {
			continue
		}
		ran++
		out, err := exec.Command("sh", "-c", strings.ReplaceAll(b.text, "http://127.0.0.1:6000", url)).Output()
		if err != nil {
			t.Errorf("%s\n%v", b.text, err)
			continue
		}
		if i+1 == len(blocks) {
			continue
		}
		switch want := blocks[i+1]; want.kind {
		case "text":
			if string(out) != strings.TrimSpace(want.text) {
				t.Errorf("%s\nprints %s\nthe README says %s", b.text, out, want.text)
			}
		case "json":
			w, err := values([]byte(want.text))
			if err != nil {
				t.Fatalf("%s: %v", want.text, err)
			}
			g, err := values(out)
			fits := err == nil && len(g) == len(w)
			for _, one := range w { // of a batch, in any order
				fits = fits && slices.ContainsFunc(g, func(other any) bool { return within(one, other) })
			}
			if !fits {
				t.Errorf("%s\nprints %s\nthe README says %s", b.text, out, want.text)
			}
		}
	}
	if ran < 8 {
		t.Errorf("found %d curl lines in the README, want one for each endpoint at least", ran)
	}
}

// values decodes one JSON value after the other.
func values(text []byte) (all []any, err error) {
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		var v any
		if err := d.Decode(&v); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
}

// TestExampleSubmission sends the examples' ready-made body.
func TestExampleSubmission(t *testing.T) {
	url := os.Getenv("GRADEFLEET_URL")
	if url == "" {
		t.Skip("set GRADEFLEET_URL to a running fleet (make test-readme does)")
	}
	out, err := exec.Command("curl", "-s", url+"/evaluate_code", "-H", "Content-Type: application/json", "-d", "@../../../examples/submission.json").Output()
	if err != nil || !strings.HasPrefix(string(out), `{"passed":`) {
		t.Errorf("answer %s, error %v", out, err)
	}
}

type fence struct{ kind, text string }

// fences returns the fenced blocks of a Markdown text.
func fences(s string) (all []fence) {
	lines := strings.Split(s, "\n")
	for i := 0; i < len(lines); i++ {
		kind, ok := strings.CutPrefix(lines[i], "```")
		if !ok {
			continue
		}
		var text []string
		for i++; i < len(lines) && lines[i] != "```"; i++ {
			text = append(text, lines[i])
		}
		all = append(all, fence{kind, strings.Join(text, "\n")})
	}
	return all
}

// within reports whether everything that want says is so in got.
func within(want, got any) bool {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		for k := range w {
			v, there := g[k]
			ok = ok && there && within(w[k], v)
		}
		return ok
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for i := range w {
			if !within(w[i], g[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(want, got)
}
