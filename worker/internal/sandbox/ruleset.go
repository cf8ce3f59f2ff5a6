package sandbox

import (
	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/worker/internal/sandbox/landlock"
)

// placeRuleset is the Landlock layer of one place, kept for the next job there:
// making it takes a dozen system calls.
type placeRuleset struct {
	fd   int // 0 if there is none
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
func (p *placeRuleset) of(held *landlock.Held, at Place) (int, error) {
	var now [3]placeDir
	known := true
	for i, path := range [...]string{at.Work, at.Tmp, at.Home} {
		var err error
		if now[i], err = identify(path); err != nil {
			return -1, err
		}
		known = known && now[i].identification
	}
	if p.fd > 0 && known && now == p.dirs {
		return p.fd, nil
	}
	p.close()
	fd, err := held.Ruleset(at.Work, at.Tmp, at.Home)
	if err != nil {
		return -1, err
	}
	p.fd, p.dirs = fd, now
	return fd, nil
}

func (p *placeRuleset) close() {
	if p.fd > 0 {
		unix.Close(p.fd)
	}
	*p = placeRuleset{}
}
