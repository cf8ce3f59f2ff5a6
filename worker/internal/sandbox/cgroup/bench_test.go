package cgroup

import "testing"

func BenchmarkLimitUnchanged(b *testing.B) {
	g := newGroup(b, find(b), "bench")
	b.ReportAllocs()
	for b.Loop() {
		if err := g.Limit(64*mib, 64); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLimitChanged(b *testing.B) {
	g := newGroup(b, find(b), "bench")
	b.ReportAllocs()
	for n := int64(0); b.Loop(); n++ {
		if err := g.Limit((64+n%2)*mib, int(64+n%2)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUsage(b *testing.B) {
	benchmarkRead(b, func(g *Group) error { _, err := g.Usage(); return err })
}
func BenchmarkPeak(b *testing.B) {
	benchmarkRead(b, func(g *Group) error { _, err := g.Peak(); return err })
}
func BenchmarkResetPeak(b *testing.B) {
	benchmarkRead(b, func(g *Group) error { return g.ResetPeak() })
}
func BenchmarkOOMKills(b *testing.B) {
	benchmarkRead(b, func(g *Group) error { _, err := g.OOMKills(); return err })
}
func BenchmarkCPU(b *testing.B) {
	benchmarkRead(b, func(g *Group) error { _, err := g.CPU(); return err })
}

func benchmarkRead(b *testing.B, do func(*Group) error) {
	g := newGroup(b, find(b), "bench")
	b.ReportAllocs()
	for b.Loop() {
		if err := do(g); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewClose(b *testing.B) {
	r := find(b)
	for b.Loop() {
		g, err := r.New(unique("bench"))
		if err != nil {
			b.Fatal(err)
		}
		if err := g.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
