package fleettest

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/gradefleet/gradefleet/"

// rules say which packages a package (and those below it, with /…) must not
// import, directly or through others, and why.
var rules = []struct {
	from   string
	not    []string
	reason string
}{
	{"gateway/...", []string{module + "worker", module + "cli"}, "the gateway knows the protocol and nothing of execution"},
	{"worker/...", []string{module + "gateway", module + "cli", "github.com/gin-gonic", "github.com/nats-io/nats-server"}, "the worker knows nothing of HTTP requests, and NATS is embedded by the all-in-one command only"},
	{"shared/...", []string{module + "gateway", module + "worker", module + "cli"}, "imports run one way"},
	{"shared/protocol", []string{"github.com/", "golang.org/x/"}, "the wire format stands on the standard library"},
	{"shared/kept", []string{"github.com/nats-io/nats-server"}, "embeddednats is the only importer of nats-server"},
	{"shared/bus", []string{"github.com/nats-io/nats-server"}, "embeddednats is the only importer of nats-server"},
	{"gateway/internal/placement", []string{"net", "github.com/nats-io", "github.com/gin-gonic"}, "placement is pure"},
	{"gateway/internal/dispatch", []string{"github.com/gin-gonic"}, "gin is the api's"},
	{"worker/internal/pyvalue", []string{module, "github.com/"}, "values stand on the standard library"},
	{"worker/internal/pyrunner", []string{module + "worker/internal/sandbox", module + "worker/internal/session", module + "worker/internal/verdict", module + "worker/internal/pyvalue", "github.com/nats-io"}, "leaves don't import each other"},
	{"worker/internal/sandbox/cgroup", []string{module, "github.com/"}, "a layer of the sandbox stands on the kernel's interface"},
	{"worker/internal/sandbox/landlock", []string{module, "github.com/"}, "a layer of the sandbox stands on the kernel's interface"},
	{"worker/internal/sandbox/namespace", []string{module, "github.com/"}, "a layer of the sandbox stands on the kernel's interface"},
	{"cli/internal/redteam", []string{module + "worker", module + "gateway"}, "the red team knows no more than its HTTP answers and the host"},
	{"cli/internal/chaos/history", []string{module, "net", "os/exec", "github.com/nats-io"}, "the checker sees what clients recorded, and nothing of the fleet"},
	{"cli/internal/chaos/procs", []string{module + "worker", module + "gateway", module + "cli/internal/chaos/load", module + "cli/internal/chaos/history"}, "processes are started and killed, whatever they are asked"},
	{"cli/internal/limit", []string{module}, "what a fleet is measured against shares nothing with it"},
	{"cli/internal/localfleet", []string{module + "worker", module + "gateway", module + "shared"}, "it starts programs and knows nothing of their insides"},
	{"cli/internal/proctable", []string{module, "github.com/"}, "it reads /proc and knows nothing of whose processes they are"},
	{"worker/internal/sandbox/proctree", []string{module, "github.com/"}, "it looks at processes and knows nothing of whose they are"},
	{"worker/internal/sandbox/seccomp", []string{module, "github.com/"}, "a layer of the sandbox stands on the kernel's interface"},
	{"worker/internal/sandbox", []string{module + "worker/internal/session", module + "worker/internal/pyrunner", module + "worker/internal/verdict", module + "worker/internal/pyvalue", "github.com/nats-io"}, "the sandbox takes a directory, not a session"},
	{"worker/internal/session", []string{module + "worker/internal/sandbox", module + "worker/internal/pyrunner", module + "worker/internal/verdict", "github.com/nats-io"}, "sessions are directories and know nothing of jobs"},
	{"worker/internal/durable", []string{module + "worker/internal/session", module + "worker/internal/sandbox", module + "worker/internal/execute"}, "what is stored knows nothing of directories"},
	{"worker/internal/workcopy", []string{module + "worker/internal/sandbox", module + "worker/internal/pyrunner", module + "worker/internal/execute", module + "worker/internal/intake"}, "a working copy knows nothing of jobs"},
	{"worker/internal/verdict", []string{module + "worker/internal/pyrunner", module + "worker/internal/sandbox", module + "worker/internal/session", "os/exec", "github.com/nats-io"}, "the verdict runs nothing"},
	{"worker/internal/execute", []string{"github.com/nats-io", "github.com/prometheus"}, "the engine can be driven without a queue"},
}

func TestImportsRunOneWay(t *testing.T) {
	imports := listImports(t)
	for _, r := range rules {
		base, all := strings.CutSuffix(r.from, "/...")
		found := false
		for pkg, deps := range imports {
			if pkg != module+base && !(all && strings.HasPrefix(pkg, module+base+"/")) {
				continue
			}
			found = true
			for _, dep := range deps {
				for _, not := range r.not {
					if dep == not || strings.HasPrefix(dep, strings.TrimSuffix(not, "/")+"/") {
						t.Errorf("%s imports %s: %s", pkg, dep, r.reason)
					}
				}
			}
		}
		if !found {
			t.Errorf("no package %s any more: mend the rule", r.from)
		}
	}
}

// listImports returns the dependencies of every package of the workspace.
func listImports(t *testing.T) map[string][]string {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.work")); err != nil {
		t.Skip("not in the workspace")
	}
	cmd := exec.Command("go", "list", "-deps=false", "-json=ImportPath,Deps", "./shared/...", "./gateway/...", "./worker/...", "./cli/...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	imports := map[string][]string{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Deps       []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return imports
		} else if err != nil {
			t.Fatal(err)
		}
		imports[p.ImportPath] = p.Deps
	}
}
