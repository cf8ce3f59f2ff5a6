package session

import (
	"fmt"
	"path/filepath"
	"testing"
)

func benchSession(b *testing.B) (*Store, *Session) {
	b.Helper()
	st, err := Open(testConfig(filepath.Join(reachable(b), "data")))
	ok(b, err)
	b.Cleanup(func() { st.Close() })
	s, err := st.Create("session", 1)
	ok(b, err)
	return st, s
}

func BenchmarkWriteFile(b *testing.B) {
	_, s := benchSession(b)
	data := make([]byte, 1000)
	for i := 0; b.Loop(); i++ {
		ok(b, s.WriteFile(fmt.Sprintf("d/%d", i%100), data))
	}
}

func BenchmarkReadFile(b *testing.B) {
	_, s := benchSession(b)
	ok(b, s.WriteFile("d/f", make([]byte, 1000)))
	for b.Loop() {
		_, err := s.ReadFile("d/f")
		ok(b, err)
	}
}

func BenchmarkRefresh(b *testing.B) {
	_, s := benchSession(b)
	for i := range 10 {
		ok(b, s.WriteFile(fmt.Sprintf("d/%d", i), nil))
	}
	for b.Loop() {
		_, err := s.Refresh()
		ok(b, err)
	}
}

func BenchmarkCreateRemove(b *testing.B) {
	st, _ := benchSession(b)
	for b.Loop() {
		_, err := st.Create("a", 1)
		ok(b, err)
		ok(b, st.Remove("a"))
	}
}

func BenchmarkForkRemove(b *testing.B) {
	st, s := benchSession(b)
	for i := range 10 {
		ok(b, s.WriteFile(fmt.Sprintf("d/%d", i), make([]byte, 1000)))
	}
	for b.Loop() {
		_, err := st.Fork(b.Context(), "session", "copy", 1)
		ok(b, err)
		ok(b, st.Remove("copy"))
	}
}

func BenchmarkScratchReset(b *testing.B) {
	st, _ := benchSession(b)
	s, err := st.NewScratch("slot-0")
	ok(b, err)
	b.Cleanup(func() { s.Close() })
	b.Run("clean", func(b *testing.B) {
		for b.Loop() {
			ok(b, s.Reset())
		}
	})
}
