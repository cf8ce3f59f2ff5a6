package session

// CleanPath returns the normal form of a path inside a session, or the error
// that the file operations have for it.
func CleanPath(rel string) (string, error) { return cleanPath(rel) }
