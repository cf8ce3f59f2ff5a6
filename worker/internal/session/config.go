package session

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Config says where sessions live and what they may take up.
type Config struct {
	// Root is the directory that holds everything of this package. It is made
	// if it doesn't exist; one that holds anything else is refused.
	Root string
	// UIDBase and UIDCount are the pool of user ids: each session and scratch
	// gets one as its user and its group. It needs root, and ids that nothing
	// else on the machine uses. A count of 0 means no users: everything belongs
	// to the worker's own.
	UIDBase, UIDCount int
	// MaxFileBytes limits what one ReadFile or WriteFile carries, in bytes;
	// 0 means protocol.MaxBodyBytes. Jobs have the sandbox's limit instead.
	MaxFileBytes int64
	// QuotaBytes and QuotaFiles limit a session, as Usage counts; 0 means no
	// limit. Enforced by WriteFile and, for those who ask, CheckQuota: a job
	// can go over it while it runs.
	QuotaBytes, QuotaFiles int64
	// Clock is time.Now if nil.
	Clock func() time.Time
	// Log gets what is wrong with a session without being an error of any
	// call; discarded if nil.
	Log *slog.Logger
}

// WithDefaults returns a copy with the zero values replaced.
func (c Config) WithDefaults() Config {
	if c.MaxFileBytes == 0 {
		c.MaxFileBytes = protocol.MaxBodyBytes
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

const (
	// minUID leaves the ids alone that systems give to their own services.
	minUID = 1000
	// maxUID is below what some systems take for negative.
	maxUID = 1<<31 - 1
	// nobody is the id that stands for "no user" in many places.
	nobody = 65534
)

func (c Config) validate() error {
	if c.Root == "" {
		return errors.New("session root is empty: name a directory")
	}
	if c.MaxFileBytes < 0 || c.QuotaBytes < 0 || c.QuotaFiles < 0 {
		return fmt.Errorf("session limits can't be negative: file %d bytes, quota %d bytes and %d files", c.MaxFileBytes, c.QuotaBytes, c.QuotaFiles)
	}
	if c.UIDCount < 0 {
		return fmt.Errorf("session user ids: the count is %d; use 0 for none", c.UIDCount)
	}
	if c.UIDCount == 0 {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("session user ids %d to %d need a worker that runs as root; this one has uid %d", c.UIDBase, c.UIDBase+c.UIDCount-1, os.Geteuid())
	}
	if c.UIDBase < minUID || c.UIDBase > maxUID-c.UIDCount {
		return fmt.Errorf("session user ids: %d from %d on; they must lie between %d and %d", c.UIDCount, c.UIDBase, minUID, maxUID)
	}
	if c.UIDBase <= nobody && nobody < c.UIDBase+c.UIDCount {
		return fmt.Errorf("session user ids: %d from %d on include %d, which is nobody's; choose another range", c.UIDCount, c.UIDBase, nobody)
	}
	return nil
}

// checkReach returns an error that names the directory which keeps the pool's
// users from root, an absolute path without links. It goes by the modes, not by
// access control lists.
func checkReach(root string) error {
	for dir := filepath.Dir(root); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("look at a parent of the session root: %w", err)
		}
		if info.Mode()&0o001 == 0 {
			return fmt.Errorf("directory %s keeps the sessions' users from their files: its mode is %04o, others can't pass; run chmod o+x %s, or choose another session root than %s", dir, info.Mode().Perm(), dir, root)
		}
		if dir == "/" {
			return nil
		}
	}
}

// checkUsers returns an error that says why the worker can't give files to the
// pool's users, trying the first and the last on a directory of its own.
func (c Config) checkUsers(dir string) error {
	probe, err := os.MkdirTemp(dir, "probe")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer os.Remove(probe)
	for _, uid := range []int{c.UIDBase, c.UIDBase + c.UIDCount - 1} {
		if err := os.Chown(probe, uid, uid); err != nil {
			return fmt.Errorf("session user id %d can't own files: %w; the worker needs CAP_CHOWN, and in a user namespace the id must be mapped", uid, err)
		}
		if err := asUser(uid, func() error { return nil }); err != nil {
			return err
		}
	}
	if err := os.Chown(probe, 0, 0); err != nil {
		return fmt.Errorf("take a directory back: %w", err)
	}
	return nil
}
