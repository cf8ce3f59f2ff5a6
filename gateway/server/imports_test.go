package server

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Who may import what, and why. A package that is gone fails the test, so that
// the rules don't outlive it.
var importRules = []struct {
	pkg    string // folder in this module; "" for all
	not    string // import path prefix
	except string // folder that may
	why    string
}{
	{"", "github.com/gradefleet/gradefleet/worker", "", "a gateway knows nothing of execution"},
	{"", "github.com/gradefleet/gradefleet/cli", "", "imports run one way, from the command down"},
	{"", "github.com/gin-gonic/gin", "internal/api", "HTTP stays in one package"},
	{"", "github.com/nats-io/nats-server", "", "only shared/embeddednats runs a server"},
	{"", "github.com/alecthomas/kong", "cmd/gateway", "flags are parsed in main"},
	{"internal/api", "github.com/nats-io", "", "what is behind Fleet is none of its business"},
	{"internal/api", "github.com/gradefleet/gradefleet/gateway/internal/dispatch", "", "it sees the fleet through its own interface"},
	{"internal/api", "github.com/gradefleet/gradefleet/gateway/internal/placement", "", "it sees the fleet through its own interface"},
	{"internal/placement", "github.com/nats-io", "", "it is pure"},
	{"internal/placement", "net", "", "it is pure"},
	{"internal/routing", "github.com/nats-io", "", "it decides; others do the I/O"},
	{"internal/routing", "net/http/", "", "it decides; others do the I/O"},
	{"internal/shape", "github.com/nats-io", "", "it only looks at bytes"},
	{"internal/batch", "github.com/nats-io", "", "it grades lines; others get them to a worker"},
	{"internal/batch", "github.com/gradefleet/gradefleet/gateway/internal/dispatch", "", "it grades lines; others get them to a worker"},
	{"internal/rate", "github.com/", "", "it counts"},
	{"internal/backlog", "github.com/gradefleet/gradefleet/gateway/", "", "it moves what is stored, and knows nothing of who stored it"},
	{"internal/webhook", "github.com/gradefleet/gradefleet/gateway/", "", "it tells what it is given, and knows nothing of who made it"},
	{"internal/jobs", "net/http/", "", "HTTP stays in one package"},
	{"internal/fault", "github.com/", "", "everybody imports it"},
	{"internal/dispatch", "github.com/gradefleet/gradefleet/gateway/internal/roster", "", "leaves don't import each other"},
	{"internal/dispatch", "github.com/gradefleet/gradefleet/gateway/internal/ownership", "", "leaves don't import each other"},
	{"internal/ownership", "github.com/gradefleet/gradefleet/gateway/", "", "leaves don't import each other"},
	{"internal/roster", "github.com/gradefleet/gradefleet/gateway/internal/dispatch", "", "leaves don't import each other"},
}

func TestImports(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	imports := map[string][]string{} // by folder
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range f.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			imports[filepath.ToSlash(folder)] = append(imports[filepath.ToSlash(folder)], name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range importRules {
		for _, folder := range []string{rule.pkg, rule.except} {
			if _, err := os.Stat(filepath.Join(root, folder)); err != nil {
				t.Errorf("the rule about %s names a package that is gone: %v", rule.not, err)
			}
		}
		for folder, list := range imports {
			if rule.pkg != "" && folder != rule.pkg || rule.except != "" && folder == rule.except {
				continue
			}
			for _, name := range list {
				if name == rule.not || strings.HasPrefix(name, strings.TrimSuffix(rule.not, "/")+"/") {
					t.Errorf("%s imports %s: %s", folder, name, rule.why)
				}
			}
		}
	}
}
