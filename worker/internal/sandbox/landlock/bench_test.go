package landlock

import (
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sessionDirs makes what a session has: work, tmp and home.
func sessionDirs(b *testing.B) []string {
	b.Helper()
	top := b.TempDir()
	dirs := []string{top + "/work", top + "/tmp", top + "/home"}
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o700); err != nil {
			b.Fatal(err)
		}
	}
	return dirs
}

// BenchmarkRuleset is what the worker pays for a session's layer.
func BenchmarkRuleset(b *testing.B) {
	need(b, 6)
	dirs := sessionDirs(b)
	b.Run("looked up", func(b *testing.B) {
		p := Runtime().Writable(dirs...)
		for b.Loop() {
			fd, err := p.Ruleset()
			if err != nil {
				b.Fatal(err)
			}
			unix.Close(fd)
		}
	})
	b.Run("held", func(b *testing.B) {
		h := hold(b, Runtime())
		for b.Loop() {
			fd, err := h.Ruleset(dirs...)
			if err != nil {
				b.Fatal(err)
			}
			unix.Close(fd)
		}
	})
}

// onThread runs do on a thread that ends with it, under the rulesets given.
func onThread(b *testing.B, do func(), rulesets ...int) {
	b.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		for _, fd := range rulesets {
			if err == nil {
				err = Enter(fd)
			}
		}
		if err == nil {
			do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// layers makes the shared layer and a session's.
func layers(b *testing.B) (shared, session int) {
	b.Helper()
	dirs := sessionDirs(b)
	h := hold(b, Runtime())
	return int(layer(b, hold(b, Runtime().Writable(dirs...))).Fd()), int(layer(b, h, dirs...).Fd())
}

// BenchmarkEnter is what the forked child pays, under a shared layer.
func BenchmarkEnter(b *testing.B) {
	need(b, 6)
	shared, session := layers(b)
	var spent time.Duration
	for range b.N {
		onThread(b, func() {
			start := time.Now()
			if err := Enter(session); err != nil {
				b.Error(err)
			}
			spent += time.Since(start)
		}, shared)
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "ns/enter")
	b.ReportMetric(0, "ns/op") // which would be mostly the thread's
}

// BenchmarkOpen is what each open of a file pays, by the number of layers.
func BenchmarkOpen(b *testing.B) {
	need(b, 6)
	shared, session := layers(b)
	for _, c := range []struct {
		name     string
		rulesets []int
	}{{"free", nil}, {"shared layer", []int{shared}}, {"both layers", []int{shared, session}}} {
		b.Run(c.name, func(b *testing.B) {
			onThread(b, func() {
				for b.Loop() {
					if err := openAndClose("/usr/bin/env", unix.O_RDONLY); err != nil {
						b.Error(err)
						return
					}
				}
			}, c.rulesets...)
		})
	}
}
