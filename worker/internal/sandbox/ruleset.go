package sandbox

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/worker/internal/sandbox/landlock"
)

// keptRulesets is how many places' Landlock layers a cell keeps: commands of some
// sessions at a time come by turns. A layer keeps the inodes of its directories.
const keptRulesets = 8

// rulesets are the Landlock layers of the last places, kept for the next job
// there: making one takes a dozen system calls. The last used stands last.
type rulesets []placeRuleset

// placeRuleset is the Landlock layer of one place.
type placeRuleset struct {
	fd   int
	dirs [3]placeDir
}

// placeDir is a directory, and which one of that name: an inode's number can be
// used again, its time of birth can't.
type placeDir struct {
	path           string
	major, minor   uint32
	inode          uint64
	born           unix.StatxTimestamp
	identification bool // whether the file system tells all of that
}

func identify(path string) (placeDir, error) {
	var st unix.Statx_t
	const mask = unix.STATX_INO | unix.STATX_BTIME
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, mask, &st); err != nil {
		return placeDir{}, err
	}
	return placeDir{path, st.Dev_major, st.Dev_minor, st.Ino, st.Btime, st.Mask&mask == mask}, nil
}

// of returns the descriptor of a place's ruleset, made from what is held. It is
// good until the next call.
func (k *rulesets) of(held *landlock.Held, at Place) (int, error) {
	var now [3]placeDir
	known := true
	for i, path := range [...]string{at.Work, at.Tmp, at.Home} {
		var err error
		if now[i], err = identify(path); err != nil {
			return -1, err
		}
		known = known && now[i].identification
	}
	// One of the same paths is this one, or of directories that are gone.
	same := func(r placeRuleset) bool {
		return r.dirs[0].path == now[0].path && r.dirs[1].path == now[1].path && r.dirs[2].path == now[2].path
	}
	if i := slices.IndexFunc(*k, same); i >= 0 {
		r := (*k)[i]
		*k = slices.Delete(*k, i, i+1)
		if known && r.dirs == now {
			*k = append(*k, r)
			return r.fd, nil
		}
		unix.Close(r.fd)
	}
	fd, err := held.Ruleset(at.Work, at.Tmp, at.Home)
	if err != nil {
		return -1, err
	}
	if len(*k) == keptRulesets {
		unix.Close((*k)[0].fd)
		*k = slices.Delete(*k, 0, 1)
	}
	*k = append(*k, placeRuleset{fd, now})
	return fd, nil
}

func (k *rulesets) close() {
	for _, r := range *k {
		unix.Close(r.fd)
	}
	*k = nil
}
