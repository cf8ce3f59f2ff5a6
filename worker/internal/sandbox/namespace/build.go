package namespace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// tree is a clone of a part of the host's file system, not yet mounted.
type tree struct {
	fd  int
	to  string
	dir bool
}

// Build makes the slot's root and enters it. The process was started with
// [Kind.Attributes] and has one thread that does this. After an error the
// process must end.
func (p Policy) Build() error {
	// Nothing done here may show outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	trees, err := p.clone()
	if err != nil {
		return err
	}
	root := p.Anchor
	options := fmt.Sprintf("mode=755,size=%d", PrivateBytes)
	if err := unix.Mount("tmpfs", root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	if err := p.fill(root, trees); err != nil {
		return err
	}
	if p.Here != "" {
		if err := os.MkdirAll(root+p.Here, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
	}
	if err := enter(root); err != nil {
		return err
	}
	if p.Here != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
			return fmt.Errorf("share mounts: %w", err)
		}
	}
	if err := unix.Sethostname([]byte(Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	return nil
}

// clone takes clones of all that is to be inside, before the new root covers any of it.
func (p Policy) clone() ([]tree, error) {
	var trees []tree
	take := func(from, to string, attributes uint64) error {
		info, err := os.Stat(from)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look at %s: %w", from, err)
		}
		// Recursive: in a user namespace mounts can't be taken without those
		// below them.
		fd, err := unix.OpenTree(unix.AT_FDCWD, from, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return fmt.Errorf("clone tree %s: %w", from, err)
		}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attributes}); err != nil {
			return fmt.Errorf("set attributes of %s: %w", from, err)
		}
		trees = append(trees, tree{fd, to, info.IsDir()})
		return nil
	}
	const safe = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	for _, path := range slices.Sorted(slices.Values(p.ReadOnly)) { // parents first
		if err := take(path, path, safe|unix.MOUNT_ATTR_RDONLY); err != nil {
			return nil, err
		}
	}
	for _, path := range devices {
		if err := take(path, path, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC); err != nil {
			return nil, err
		}
	}
	for _, b := range p.Binds {
		attributes := uint64(safe)
		if !b.Writable {
			attributes |= unix.MOUNT_ATTR_RDONLY
		}
		if err := take(b.From, b.To, attributes); err != nil {
			return nil, err
		}
	}
	return trees, nil
}

// fill puts everything below the new root.
func (p Policy) fill(root string, trees []tree) error {
	for _, t := range trees {
		at := root + t.to
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
		var err error
		if t.dir {
			err = os.MkdirAll(at, 0o755)
		} else {
			err = os.WriteFile(at, nil, 0o444)
		}
		if err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
		if err := unix.MoveMount(t.fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("mount %s: %w", t.to, err)
		}
		unix.Close(t.fd)
	}
	for _, m := range []struct{ kind, to, options string }{
		{"proc", "/proc", ""},
		{"tmpfs", p.Private, fmt.Sprintf("mode=755,size=%d", PrivateBytes)},
	} {
		if err := os.MkdirAll(root+m.to, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
		if err := unix.Mount(m.kind, root+m.to, m.kind, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.to, err)
		}
	}
	for link, target := range p.Links {
		if err := os.MkdirAll(filepath.Dir(root+link), 0o755); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
		if err := os.Symlink(target, root+link); err != nil {
			return fmt.Errorf("make link: %w", err)
		}
	}
	return nil
}

// enter makes root the root of this process and unmounts the old one.
func enter(root string) error {
	if err := os.Chdir(root); err != nil {
		return fmt.Errorf("change directory: %w", err)
	}
	// The old root comes to lie over the new one, where it can be unmounted
	// without a directory for it: pivot_root(2), "pivot_root(".", ".")".
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("change directory: %w", err)
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make root read-only: %w", err)
	}
	return nil
}

// String says in one line what the slot sees.
func (p Policy) String() string {
	var b strings.Builder
	b.WriteString("read-only " + strings.Join(p.ReadOnly, " "))
	for _, bind := range p.Binds {
		mode := "read-only"
		if bind.Writable {
			mode = "read-write"
		}
		fmt.Fprintf(&b, ", %s %s", mode, bind.To)
	}
	return b.String()
}
