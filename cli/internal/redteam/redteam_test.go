package redteam

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	only    = flag.String("attack", "", "try the attacks whose names match this expression only")
	saveTo  = flag.String("score", "", "file to write the score to, as JSON")
	company = flag.Int("fleets", 3, "how many fleets to attack at once")
)

// binary is the gradefleet under attack.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := testMain(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// testMain builds gradefleet, unless REDTEAM_BINARY names one that is built.
func testMain(m *testing.M) (int, error) {
	if binary = os.Getenv("REDTEAM_BINARY"); binary != "" || !attacking() {
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "gradefleet-redteam-bin-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	binary = filepath.Join(dir, "gradefleet")
	build := exec.Command("go", "build", "-o", binary, "../../cmd/gradefleet")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build gradefleet: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// attacking says whether fleets are to be attacked, which takes over a minute:
// scripts/redteam.sh has it done, and REDTEAM=1 does.
func attacking() bool { return os.Getenv("REDTEAM_BINARY") != "" || os.Getenv("REDTEAM") != "" }

func needsAttack(t *testing.T) {
	t.Helper()
	if !attacking() {
		t.Skip("make redteam, or REDTEAM=1")
	}
}

// environment names where this runs, for the score.
func environment() string {
	if name := os.Getenv("REDTEAM_ENVIRONMENT"); name != "" {
		return name
	}
	if os.Getuid() == 0 {
		return "bare-root"
	}
	return "bare-user"
}

func selected(t *testing.T, attacks []Attack) []Attack {
	pattern, err := regexp.Compile(*only)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(attacks, func(a Attack) bool { return !pattern.MatchString(a.Name) })
}

// Every attack must be held off, and everything must work right after it.
func TestRedTeam(t *testing.T) {
	needsAttack(t)
	attacks := selected(t, Attacks())
	isolation, err := isolationOf(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	outcomes, err := Campaign{Binary: binary, Fleets: *company}.Run(t.Context(), attacks)
	if err != nil {
		t.Fatal(err)
	}
	score := NewScore(environment(), isolation, outcomes)
	if *saveTo != "" {
		if err := score.Save(*saveTo); err != nil {
			t.Error(err)
		}
	}
	for _, o := range outcomes {
		switch {
		case o.Result == GotThrough:
			t.Errorf("%s got through: %s\n\t%s", o.Attack, o.Does, strings.Join(o.Seen, "\n\t"))
		case o.Result == Broken:
			t.Errorf("%s proves nothing: %s", o.Attack, o.Why)
		case len(o.Unmarked) > 0 && o.Result != NotHere:
			t.Errorf("%s was held off, but its results don't carry the mark %s", o.Attack, strings.Join(o.Unmarked, ", "))
		}
	}
	if testing.Verbose() {
		score.Table(os.Stdout)
	}
	fmt.Println(score)
}

// isolationOf is what a worker says is in force here.
func isolationOf(ctx context.Context) (string, error) {
	f, err := Start(ctx, Config{Binary: binary, Number: 99})
	if err != nil {
		return "", err
	}
	return f.Started.Isolation, errors.Join(f.Stop())
}

// The table must say of each attack what it does and what must hold.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	attacks := Attacks()
	for _, a := range attacks {
		if a.Name == "" || seen[a.Name] || a.Does == "" || a.Holds == "" || a.Run == nil || a.Family != Forge && a.Family != Escape {
			t.Errorf("attack %q: a name of its own, a family, what it does, what must hold and how to run it are needed", a.Name)
		}
		seen[a.Name] = true
	}
	if len(attacks) < 90 {
		t.Errorf("%d attacks, want 90 at least", len(attacks))
	}
}
