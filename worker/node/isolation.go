package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gradefleet/gradefleet/worker/internal/execute"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox"
)

// selfTestTimeout bounds the self-test; it takes some 20 ms.
const selfTestTimeout = 10 * time.Second

// selfTest has the first slot try what a hostile submission would, and refuses
// to go on below the configured level. It is given something to be found: a
// secret of the worker's, and a file of another session.
func (n *Node) selfTest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, selfTestTimeout)
	defer cancel()
	other, err := n.store.NewScratch("selftest")
	if err != nil {
		return err
	}
	defer other.Close()
	secret := filepath.Join(n.cfg.Data, "selftest-secret")
	foreign := filepath.Join(other.WorkDir(), "selftest-file")
	for _, file := range []string{secret, foreign} {
		// Like the files around it: the worker's only for the worker, a
		// session's for all whom its directory lets pass.
		mode := os.FileMode(0o600)
		if file == foreign {
			mode = 0o644
		}
		if err := os.WriteFile(file, []byte("not for submissions"), mode); err != nil {
			return fmt.Errorf("self-test: %w", err)
		}
		defer os.Remove(file)
	}
	s := n.slots[0]
	test := &sandbox.SelfTest{
		Secrets: []string{secret, filepath.Join(n.cfg.Data, "worker.lock"), "/etc/shadow"},
		Others:  []string{foreign},
		Places: []string{
			"/gradefleet-selftest", "/etc/gradefleet-selftest", "/usr/gradefleet-selftest", filepath.Join(n.cfg.Data, "selftest-made"),
			filepath.Join(filepath.Dir(other.WorkDir()), "selftest-made"), filepath.Join(other.WorkDir(), "selftest-made"),
			filepath.Join(n.binDir(), "selftest-made"),
		},
	}
	if err := s.SelfTest(ctx, execute.Place{Place: n.placeOf(s.scratch)}, test); err != nil {
		return err
	}
	n.idle(0)
	want := sandbox.Level(n.cfg.level())
	if err := n.policy.Require(want); err != nil {
		return err
	}
	if n.policy.Level() == sandbox.Basic {
		n.log.Warn("basic isolation: a hostile submission can reach other sessions or the worker; run only code you trust", "isolation", n.policy.Report())
	}
	return nil
}
