package proctree

import (
	"fmt"
	"testing"
	"time"
)

// What a job that ends within the interval pays.
func BenchmarkStartStop(b *testing.B) {
	g := newGuard(b, Options{Dir: b.TempDir()})
	disk := func() (int64, int64, error) { return 0, 0, nil }
	breach := func(Breach) {}
	for name, l := range map[string]Limits{"processes": {Memory: 1, CPU: 1}, "processes-and-disk": {Memory: 1, CPU: 1, DiskBytes: 1}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				g.Start(1, l, disk, breach)()
			}
		})
	}
}

func BenchmarkLooks(b *testing.B) {
	for _, n := range []int{1, 64} {
		tr := plant(b, fmt.Sprintf("for _ in range(%d): child(lambda: (say('ready'), stay()))\nstay()", n))
		tr.hears(n)
		for _, c := range []struct {
			name string
			do   func() error
		}{
			{"Descendants", func() error { _, err := Descendants(tr.pid); return err }},
			{"Measure", func() error { _, err := Measure(tr.pid); return err }},
			{"MeasureExact", func() error { _, err := MeasureExact(tr.pid); return err }},
			{"DeletedFiles", func() error { _, _, err := DeletedFiles(tr.pid); return err }},
		} {
			b.Run(fmt.Sprintf("%s/processes=%d", c.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := c.do(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkEnd(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("processes=%d", n), func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				tr := plant(b, fmt.Sprintf("for _ in range(%d): child(lambda: (say('ready'), stay()))\nstay()", n))
				tr.hears(n)
				b.StartTimer()
				if killed, err := End(tr.pid, 10*time.Second); err != nil || killed != n {
					b.Fatal(killed, err)
				}
				b.StopTimer()
				tr.wait()
			}
		})
	}
}
