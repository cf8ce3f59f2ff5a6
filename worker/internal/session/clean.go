package session

import "path/filepath"

// CleanPath returns the normal form of a path inside a session, or the error
// that the file operations have for it.
func CleanPath(rel string) (string, error) { return cleanPath(rel) }

// JobDirs are the directories below which jobs write: those of sessions and of
// scratches.
func (st *Store) JobDirs() []string {
	return []string{filepath.Join(st.root, "sessions"), filepath.Join(st.root, "scratch")}
}
