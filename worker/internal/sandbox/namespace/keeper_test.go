package namespace

import (
	"net"
	"os"
	"strings"
	"testing"
)

// A keeper mounts directories of jobs, whatever it is asked for, and goes on.
func TestKeeperMountsNothingElse(t *testing.T) {
	p := Policy{Binds: []Bind{{From: "/x", To: "/run/test/jobs", Writable: true}, {From: "/y", To: "/run/test/bin"}}}.KeepIn("/run/test/here")
	ours, theirs := socketPair(t)
	go p.serve(theirs)
	for _, dir := range []string{"/etc", "/run/test/jobs", "/run/test/jobs/../../etc", "/run/test/jobs/a/b", "/run/test/bin/x", "", "/run/test/jobs/no-such"} {
		err := Ask(ours, dir)
		if err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("asked for %q: %v", dir, err)
		}
	}
	if err := Ask(ours, strings.Repeat("x", maxRequest)); err == nil {
		t.Error("a path that no message holds was sent")
	}
}

func socketPair(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	file := func(c net.Conn) *os.File {
		defer c.Close()
		f, err := c.(*net.UnixConn).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	return file(a), file(b)
}
