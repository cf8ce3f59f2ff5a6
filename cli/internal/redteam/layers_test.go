package redteam

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Each layer of the sandbox stops attacks that nothing else stops: with a layer
// left out, and with it the others that stop the same attack, the attack gets
// through; with that one layer alone it is held off.
//
// Such a worker says that it is no better than basic, and is told to accept it.
// Only attacks that are tame are tried, and only where whatever they write is
// thrown away: on an overlay, as scripts/redteam.sh makes it.
func TestRemovedLayer(t *testing.T) {
	if os.Getenv("REDTEAM_LAYERS") == "" {
		t.Skip("run by make redteam")
	}
	if os.Getuid() != 0 {
		t.Skip("the layers of a worker that is root")
	}
	var root unix.Statfs_t
	if err := unix.Statfs("/", &root); err != nil || root.Type != unix.OVERLAYFS_SUPER_MAGIC {
		t.Fatalf("the root directory is no overlay (%v): with layers left out, attacks are let loose on a throw-away root only; run scripts/redteam.sh layers", err)
	}
	for n, layer := range Layers {
		t.Run(string(layer), func(t *testing.T) {
			tried := 0
			for _, a := range selected(t, Attacks()) {
				if !a.Tame || !slices.Contains(a.Stopped, layer) {
					continue
				}
				tried++
				if tried > perLayer {
					break
				}
				others := slices.DeleteFunc(slices.Clone(a.Stopped), func(l Layer) bool { return l == layer })
				with := try(t, a, 2*n, others)
				without := try(t, a, 2*n+1, a.Stopped)
				if with.Result != Held {
					t.Errorf("%s, with %s alone of %v: %s %v %s", a.Name, layer, a.Stopped, with.Result, with.Seen, with.Why)
				}
				if without.Result != GotThrough {
					t.Errorf("%s, without %v: %s %s; want it to get through", a.Name, a.Stopped, without.Result, without.Why)
				}
				t.Logf("%s: held off by %s; without %v: %s %.300q", a.Name, layer, a.Stopped, without.Result, without.Seen)
			}
			if tried == 0 {
				t.Errorf("no attack is stopped by %s", layer)
			}
		})
	}
}

// perLayer is how many attacks are tried for a layer: a fleet is started for
// each, twice.
const perLayer = 2

// try carries out one attack on a fleet without some layers.
func try(t *testing.T, a Attack, number int, without []Layer) Outcome {
	t.Helper()
	env := []string{"GRADEFLEET_ISOLATION=basic"}
	if len(without) > 0 {
		names := make([]string, len(without))
		for i, l := range without {
			names[i] = string(l)
		}
		env = append(env, "GRADEFLEET_WITHOUT="+strings.Join(names, ","))
	}
	f, err := Start(t.Context(), Config{Binary: binary, Number: number, Env: env})
	if err != nil {
		t.Fatal(fmt.Errorf("without %v: %w", without, err))
	}
	defer f.Stop()
	return f.Try(t.Context(), a)
}
