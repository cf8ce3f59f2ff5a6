package deploy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const root = "../../.."

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// definedMetrics finds the names that the code gives to metrics: string
// literals of that form in files that use the Prometheus library.
func definedMetrics(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	whole := regexp.MustCompile(`^gradefleet_[a-z0-9_]+$`)
	for _, module := range []string{"shared", "gateway", "worker"} {
		err := filepath.WalkDir(filepath.Join(root, module), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			uses := false
			for _, i := range file.Imports {
				uses = uses || strings.Contains(i.Path.Value, "client_golang/prometheus")
			}
			if !uses {
				return nil
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if s, err := strconv.Unquote(lit.Value); err == nil && whole.MatchString(s) {
						names[s] = true
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(names) < 25 {
		t.Fatalf("only %d metrics found in the code: %v", len(names), names)
	}
	return names
}

// Every metric in rules and dashboard exists in the code, and every recorded
// series in the rules.
func TestMetricsExist(t *testing.T) {
	defined := definedMetrics(t)
	rules := read(t, "deploy/prometheus/rules.yml")
	recorded := map[string]bool{}
	for _, m := range regexp.MustCompile(`- record: (\S+)`).FindAllStringSubmatch(rules, -1) {
		recorded[m[1]] = true
	}
	used := map[string]bool{}
	name := regexp.MustCompile(`gradefleet[_:][a-z0-9_:]+`)
	for file, text := range map[string]string{
		"rules.yml":       rules,
		"rules_test.yml":  read(t, "deploy/prometheus/rules_test.yml"),
		"gradefleet.json": read(t, "deploy/grafana/dashboards/gradefleet.json"),
	} {
		for _, n := range name.FindAllString(text, -1) {
			used[n] = true
			if strings.Contains(n, ":") {
				if !recorded[n] {
					t.Errorf("%s uses %s, which rules.yml doesn't record", file, n)
				}
				continue
			}
			base := n
			for _, suffix := range []string{"_bucket", "_sum", "_count"} { // of histograms
				if b, ok := strings.CutSuffix(n, suffix); ok && defined[b] {
					base = b
				}
			}
			if !defined[base] {
				t.Errorf("%s uses %s, which no code defines", file, n)
			}
		}
	}
	for n := range recorded {
		if strings.Count(rules+read(t, "deploy/grafana/dashboards/gradefleet.json"), n) < 2 {
			t.Errorf("rules.yml records %s, which neither an alert nor the dashboard uses", n)
		}
	}
}

// Every alert fires in a unit test, doesn't in another, and has a section that
// says what to do.
func TestAlertsAreTestedAndExplained(t *testing.T) {
	rules, tests, page := read(t, "deploy/prometheus/rules.yml"), read(t, "deploy/prometheus/rules_test.yml"), read(t, "docs/operations.md")
	alerts := regexp.MustCompile(`- alert: (\S+)`).FindAllStringSubmatch(rules, -1)
	if len(alerts) < 10 {
		t.Fatalf("%d alerts found", len(alerts))
	}
	for _, a := range alerts {
		alert := a[1]
		if !regexp.MustCompile(`alertname: ` + alert + `\n\s+exp_alerts:\n`).MatchString(tests) {
			t.Errorf("no test in which %s fires", alert)
		}
		if !strings.Contains(tests, "alertname: "+alert+", exp_alerts: []") {
			t.Errorf("no test in which %s doesn't fire", alert)
		}
		if !strings.Contains(page, "\n### "+alert+"\n") {
			t.Errorf("docs/operations.md has no section %s", alert)
		}
		if !strings.Contains(rules, "runbook: docs/operations.md#"+strings.ToLower(alert)+"\n") {
			t.Errorf("%s doesn't point to its section", alert)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (Gradefleet\w+)$`).FindAllStringSubmatch(page, -1) {
		if !strings.Contains(rules, "- alert: "+m[1]+"\n") {
			t.Errorf("docs/operations.md explains %s, which is no alert", m[1])
		}
	}
}

// The compose file's variables for our containers are settings of the program.
func TestComposeSettings(t *testing.T) {
	compose, settings := read(t, "docker-compose.yml"), read(t, "docs/configuration.md")
	found := 0
	for _, service := range []string{"gateway", "worker"} {
		_, text, ok := strings.Cut(compose, "\n  "+service+":\n")
		if !ok {
			t.Fatalf("no service %s", service)
		}
		_, text, _ = strings.Cut(text, "    environment:\n")
		for line := range strings.Lines(text) {
			m := regexp.MustCompile(`^      ([A-Z_]+): `).FindStringSubmatch(line)
			if m == nil {
				break
			}
			found++
			if !strings.Contains(settings, "`"+m[1]+"`") {
				t.Errorf("service %s sets %s, which docs/configuration.md doesn't know", service, m[1])
			}
		}
	}
	if found < 8 {
		t.Errorf("only %d variables found", found)
	}
}

// The NATS server that is deployed is the one that is embedded and tested with.
func TestVersions(t *testing.T) {
	m := regexp.MustCompile(`nats-server/v2 v(\S+)`).FindStringSubmatch(read(t, "shared/go.mod"))
	if m == nil {
		t.Fatal("shared/go.mod has no nats-server")
	}
	for _, file := range []string{"docker-compose.yml", "deploy/kubernetes/base/nats.yaml"} {
		if !strings.Contains(read(t, file), "nats:"+m[1]+"-alpine") {
			t.Errorf("%s doesn't name nats:%s-alpine, the version in shared/go.mod", file, m[1])
		}
	}
	// A moving tag is another image tomorrow.
	for _, image := range regexp.MustCompile(`image: (\S+)`).FindAllStringSubmatch(read(t, "docker-compose.yml"), -1) {
		if !strings.Contains(image[1], "gradefleet/") && (strings.Contains(image[1], "latest") || !strings.Contains(image[1][1:], ":-") || strings.Count(image[1], ":") < 2) {
			t.Errorf("docker-compose.yml: %s has no fixed version", image[1])
		}
	}
}
