package session

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	metaName    = "meta.json"
	metaVersion = 1
	// maxMetaBytes bounds what is read; a written one has some 200 bytes.
	maxMetaBytes = 4096
)

// meta is what a session's directory says of itself.
type meta struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Epoch   uint64    `json:"epoch"`
	UID     int       `json:"uid"` // also the group; -1 if the session has no user of its own
	Created time.Time `json:"created"`
}

func (m meta) encode() []byte {
	data, err := json.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("encode %s: %v", metaName, err)) // a struct of plain fields; only a year past 9999 fails
	}
	return append(data, '\n')
}

// readMeta reads and checks meta.json. The error wraps unix.ENOENT if there is
// none. Without a user pool a job could have put anything in its place.
func readMeta(dir int) (meta, error) {
	var m meta
	fd, err := openAt(dir, metaName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return m, fmt.Errorf("open %s: %w", metaName, err)
	}
	f := os.NewFile(uintptr(fd), metaName)
	defer f.Close()
	if st, err := fstat(fd); err != nil || !isRegular(&st) {
		return m, fmt.Errorf("%s is not a regular file", metaName)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxMetaBytes+1))
	if err != nil {
		return m, fmt.Errorf("read %s: %w", metaName, err)
	}
	if len(data) > maxMetaBytes {
		return m, fmt.Errorf("%s is larger than %d bytes", metaName, maxMetaBytes)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("decode %s: %w", metaName, err)
	}
	if m.Version != metaVersion {
		return m, fmt.Errorf("%s is of version %d, this worker knows %d", metaName, m.Version, metaVersion)
	}
	return m, nil
}
