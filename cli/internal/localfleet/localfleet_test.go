package localfleet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/gradefleet/gradefleet/cli/internal/proctable"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// binaries is where `make build bin/nats-server` puts programs.
func binaries(t *testing.T) string {
	t.Helper()
	if os.Getenv("TEST_SEPARATE_PROCESSES") == "" {
		t.Skip("run by make test-processes")
	}
	dir, err := filepath.Abs("../../../bin")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestProcessesOfFleets(t *testing.T) {
	dir := binaries(t)
	for name, test := range map[string]struct {
		start     func() (*Fleet, error)
		processes string
		slots     bool
	}{
		"all in one": {func() (*Fleet, error) { return AllInOne(t.Context(), Config{Binaries: dir, Slots: 1, Number: 8}) }, "gradefleet", true},
		"separate":   {func() (*Fleet, error) { return Separate(t.Context(), Config{Binaries: dir, Slots: 1, Number: 9}) }, "nats-server gateway worker", true},
		"control":    {func() (*Fleet, error) { return Control(t.Context(), ControlConfig{Binaries: dir}) }, "nats-server gateway", false},
		"cluster":    {func() (*Fleet, error) { return Control(t.Context(), ControlConfig{Binaries: dir, Servers: 3}) }, "nats-server nats-server nats-server gateway", false},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := test.start()
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, p := range f.Processes() {
				names = append(names, p.Name)
			}
			if got := strings.Join(names, " "); got != test.processes {
				t.Errorf("processes %s, want %s", got, test.processes)
			}
			slots, err := f.Slots()
			if err != nil || (len(slots) > 0) != test.slots {
				t.Errorf("slots %v: %v", slots, err)
			}
			last := f.Processes()[len(f.Processes())-1]
			if err := f.await(t.Context(), last, "there is an answer", func() bool { return get(t.Context(), f.URL+"/") != "" }); err != nil {
				t.Error(err)
			}
			pids := f.Pids()
			if err := f.Stop(); err != nil {
				t.Error(err)
			}
			table, err := proctable.Read()
			if err != nil {
				t.Fatal(err)
			}
			for _, pid := range pids {
				if _, there := table[pid]; there {
					t.Errorf("process %d is still there", pid)
				}
			}
			if _, err := os.Stat(f.dir); !os.IsNotExist(err) {
				t.Errorf("its files are still there: %v", err)
			}
		})
	}
}

func TestFleetThatCannotStart(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	if _, err := AllInOne(t.Context(), Config{Binaries: "/no/such", Slots: 1}); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("error %v, want one that says what to do", err)
	}
	if left, _ := os.ReadDir(os.TempDir()); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
