package session

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// takeUp finds again what an earlier worker left, at Open.
func (st *Store) takeUp() error {
	// A user id is handed out only if nothing that is left belongs to it.
	taken := make(map[int]string)
	for _, parent := range []int{st.scratch, st.staging} {
		if err := st.clear(parent, taken); err != nil {
			return err
		}
	}
	ids, err := entryNames(st.sessions, maxTreeEntries)
	if err != nil {
		return fmt.Errorf("list sessions: %w", err)
	}
	for _, id := range ids {
		m, err := st.inspect(id, taken)
		switch {
		case errors.Is(err, unix.ENOENT):
			st.cfg.Log.Warn("remove half-made session", "session", id)
			st.removeLeftover(st.sessions, id, taken)
		case err != nil:
			st.cfg.Log.Error("leave broken session alone", "session", id, "error", err)
			st.reserve(st.sessions, id, "broken session "+id, taken)
		default:
			s := st.session(m, st.cfg.Clock())
			st.byID[id] = s
			if _, err := s.Refresh(); err != nil {
				st.cfg.Log.Warn("measure session", "session", id, "error", err)
			}
		}
	}
	st.uids = newUIDPool(st.cfg.UIDBase, st.cfg.UIDCount, taken)
	return nil
}

// clear removes everything in one of the store's own directories.
func (st *Store) clear(parent int, taken map[int]string) error {
	names, err := entryNames(parent, maxTreeEntries)
	if err != nil {
		return fmt.Errorf("list leftovers: %w", err)
	}
	for _, name := range names {
		st.removeLeftover(parent, name, taken)
	}
	return nil
}

func (st *Store) removeLeftover(parent int, name string, taken map[int]string) {
	// Reserved before, since what fails halfway may have lost its owner's name.
	owners := make(map[int]string)
	st.reserve(parent, name, "leftover "+name, owners)
	if err := st.sweep().tree(parent, name); err != nil {
		st.cfg.Log.Error("remove leftover", "directory", name, "error", err)
		for uid, who := range owners {
			taken[uid] = who
		}
	}
}

// reserve keeps the users of a directory's content out of the pool.
func (st *Store) reserve(parent int, name, who string, taken map[int]string) {
	note := func(st unix.Stat_t, err error) {
		if err != nil {
			return
		}
		for _, uid := range []int{int(st.Uid), int(st.Gid)} {
			if taken[uid] == "" {
				taken[uid] = who
			}
		}
	}
	note(statAt(parent, name))
	dir, err := openDirAt(parent, name)
	if err != nil {
		return
	}
	defer unix.Close(dir)
	for _, sub := range placeNames {
		note(statAt(dir, sub))
	}
}

// inspect checks one session's directory; it marks its user as taken. The error
// wraps ENOENT if the directory never got its meta.json.
func (st *Store) inspect(id string, taken map[int]string) (meta, error) {
	if err := protocol.CheckSessionID(id); err != nil {
		return meta{}, err
	}
	dir, err := openDirAt(st.sessions, id)
	if err != nil {
		return meta{}, fmt.Errorf("open directory: %w", err)
	}
	defer unix.Close(dir)
	m, err := readMeta(dir)
	if err != nil {
		return m, err
	}
	switch low, high := st.cfg.UIDBase, st.cfg.UIDBase+st.cfg.UIDCount; {
	case m.ID != id:
		return m, fmt.Errorf("%s says it is session %q", metaName, m.ID)
	case m.Epoch == 0:
		return m, fmt.Errorf("%s has no epoch", metaName)
	case st.cfg.UIDCount == 0 && m.UID != -1:
		return m, fmt.Errorf("it belongs to user id %d, but this worker gives sessions no users of their own; run it as before", m.UID)
	case st.cfg.UIDCount > 0 && (m.UID < low || m.UID >= high):
		return m, fmt.Errorf("it belongs to user id %d, outside of %d to %d; configure the range that it was made with", m.UID, low, high-1)
	case st.cfg.UIDCount > 0 && taken[m.UID] != "":
		return m, fmt.Errorf("its user id %d is that of %s", m.UID, taken[m.UID])
	}
	if err := fillPlace(dir, m.UID); err != nil {
		return m, err
	}
	for _, name := range placeNames {
		at, err := statAt(dir, name)
		if err != nil || !isDir(&at) {
			return m, fmt.Errorf("%s is not a directory", name)
		}
		if m.UID >= 0 && int(at.Uid) != m.UID {
			return m, fmt.Errorf("%s belongs to user id %d, not to %d", name, at.Uid, m.UID)
		}
	}
	if m.UID >= 0 {
		taken[m.UID] = "session " + id
	}
	return m, nil
}
