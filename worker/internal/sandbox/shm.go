package sandbox

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// sharedMemory looks after /dev/shm where all slots have the same one: without
// namespaces, with a user for each session. What a session's jobs made there is
// removed when the last of them has ended.
type sharedMemory struct {
	dir  string
	mu   sync.Mutex
	jobs map[int]int // running, by user
}

// enter notes a job of a user, leave its end.
func (s *sharedMemory) enter(uid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs == nil {
		s.jobs = map[int]int{}
	}
	s.jobs[uid]++
}

func (s *sharedMemory) leave(uid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs[uid]--; s.jobs[uid] > 0 {
		return
	}
	delete(s.jobs, uid)
	s.each(uid, func(path string, _ *syscall.Stat_t) { os.Remove(path) })
}

// usage is what a user has there.
func (s *sharedMemory) usage(uid int) (bytes, files int64) {
	s.each(uid, func(_ string, st *syscall.Stat_t) {
		bytes += st.Blocks * 512
		files++
	})
	return bytes, files
}

// each calls f for every entry of a user. Jobs can make nothing but files there.
func (s *sharedMemory) each(uid int, f func(path string, st *syscall.Stat_t)) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // removed meanwhile
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == uid {
			f(filepath.Join(s.dir, e.Name()), st)
		}
	}
}
