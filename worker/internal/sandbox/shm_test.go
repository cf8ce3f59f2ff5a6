package sandbox

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSharedMemoryGoesWithItsLastJob(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("giving files to users needs root")
	}
	s := &sharedMemory{dir: t.TempDir()}
	put := func(name string, uid int) string {
		path := filepath.Join(s.dir, name)
		if err := os.WriteFile(path, make([]byte, 5000), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, uid, uid); err != nil {
			t.Fatal(err)
		}
		return path
	}
	left := func(path string) bool { _, err := os.Lstat(path); return err == nil }
	s.enter(219001)
	s.enter(219001)
	s.enter(219002)
	mine, other, host := put("sem.mine", 219001), put("sem.other", 219002), put("host", 0)
	if bytes, files := s.usage(219001); bytes < 5000 || files != 1 {
		t.Errorf("usage %d bytes, %d files", bytes, files)
	}
	s.leave(219001)
	if !left(mine) {
		t.Error("removed while a job of the session runs")
	}
	s.leave(219001)
	if left(mine) || !left(other) || !left(host) {
		t.Errorf("after the last job: its own %v, another's %v, the host's %v", left(mine), left(other), left(host))
	}
}
