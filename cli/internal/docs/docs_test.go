// Package docs holds documents against the program: the table of settings, and
// every line of the README that says what a command prints.
package docs

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/gradefleet/gradefleet/cli/internal/up"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

const configurationFile = "../../../docs/configuration.md"

// TestConfiguration holds docs/configuration.md against the flags' one
// definition.
func TestConfiguration(t *testing.T) {
	var c up.Config
	parser, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(`# Configuration

Every setting is a flag and an environment variable; both come from one definition in the code, and so does this page
(` + "`go test ./cli/internal/docs -update`" + `). ` + "`gradefleet up`" + ` takes all of them, the separate binaries those of their own part.
Times are Go durations (` + "`90s`, `5m`" + `), sizes are bytes.
`)
	var group string
	for _, f := range parser.Model.Flags {
		if f.Name == "help" {
			continue
		}
		title := "All in one"
		if f.Group != nil {
			title = f.Group.Title
		}
		if title != group {
			group = title
			fmt.Fprintf(&b, "\n## %s\n\n| flag | variable | default | meaning |\n|---|---|---|---|\n", group)
		}
		def := "none"
		if f.Default != "" {
			def = "`" + f.Default + "`"
		}
		env := ""
		if len(f.Envs) > 0 {
			env = "`" + strings.Join(f.Envs, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `--%s` | %s | %s | %s |\n", f.Name, env, def, strings.ReplaceAll(f.Help, "|", "\\|"))
		if env == "" {
			t.Errorf("--%s has no environment variable", f.Name)
		}
		if f.Help == "" {
			t.Errorf("--%s has no help", f.Name)
		}
	}
	if *update {
		if err := os.WriteFile(configurationFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(configurationFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Error("docs/configuration.md is not what the flags say; run: go test ./cli/internal/docs -update")
	}
}
