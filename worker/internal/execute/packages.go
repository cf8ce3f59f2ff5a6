package execute

import (
	"regexp"
	"slices"
	"strings"
)

// largePackages take longer to import than most submissions take to run: some
// 0.1 s for numpy, 0.4 s more for pandas. They are loaded ahead in fork servers
// of their own, since each MB makes every fork dearer (2 cores, Python 3.11:
// fork and end of a child 0.5 ms with none of them, 1.8 ms with numpy, 3.3 ms
// with both). The one that loads another stands first.
var largePackages = []struct {
	name    string
	imports *regexp.Regexp
}{
	{"pandas", importOf("pandas")},
	{"numpy", importOf("numpy|scipy")},
}

// importOf matches an import statement of one of the packages. What it overlooks
// imports for itself, what it takes for one has only a dearer fork.
func importOf(names string) *regexp.Regexp {
	return regexp.MustCompile(`(?m)^[ \t]*(?:from[ \t]+(?:` + names + `)\b|import\b[^\n#]*\b(?:` + names + `)\b)`)
}

// largePackage names the package, of those the interpreter has, that a fork
// server for the code should have loaded; "" for none.
func largePackage(code string, has []string) string {
	for _, p := range largePackages {
		if !slices.Contains(has, p.name) || !strings.Contains(code, p.name) && !(p.name == "numpy" && strings.Contains(code, "scipy")) {
			continue
		}
		if p.imports.MatchString(code) {
			return p.name
		}
	}
	return ""
}
