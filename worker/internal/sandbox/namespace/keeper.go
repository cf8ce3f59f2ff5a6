package namespace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A keeper is the first process of a slot's namespaces where sessions have no
// users of their own (AsUser). There a path to another session would be enough
// to change its modes, which nothing but the lack of a path prevents: so the
// mounts that jobs see have no sessions, but one directory, Here, to which the
// keeper mounts the session whose turn it is. Its own mounts, with all
// sessions, are the master of theirs.

// KeepIn gives the Policy a keeper: the directories of jobs are left out of
// what the program in the namespaces sees, and here is where it sees the one
// that [Ask] names.
func (p Policy) KeepIn(here string) Policy {
	p.Here = here
	return p
}

// Leave takes the keeper's child out of what only the keeper may see. It runs
// in a mount namespace of its own.
func (p Policy) Leave() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("follow the keeper's mounts: %w", err)
	}
	for _, b := range p.Binds {
		if !b.Writable {
			continue
		}
		if err := unix.Unmount(b.To, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", b.To, err)
		}
	}
	return nil
}

// Keep starts the program and serves requests on a stream socket until the
// program ends, and then returns how. The program gets our standard streams and
// the descriptors files; it is started with argv[0] name, in a mount namespace
// of its own, and calls [Policy.Leave].
func (p Policy) Keep(requests *os.File, files []*os.File, name string, args ...string) error {
	signal.Ignore(ending...) // its own jobs are not to end it
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{name}, args...)
	cmd.Env, cmd.Dir = os.Environ(), "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP}}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start program: %w", err)
	}
	for _, f := range files {
		f.Close() // so that the program has the only one
	}
	os.Stdin.Close()
	go p.serve(requests)
	return cmd.Wait() // and orphans die with this, the namespace's first process
}

// ending are the signals that would end a Go program. SIGCHLD is not to be
// ignored: nobody could wait for the program then.
var ending = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGALRM, unix.SIGABRT}

// serve mounts what it is asked for: a line with a path below one of Binds, as
// it is in the keeper's mounts. The answer is "ok" or an error, and a newline.
func (p Policy) serve(requests *os.File) {
	mounted := false
	var buf [maxRequest]byte
	for {
		n, err := requests.Read(buf[:])
		if n == 0 || err != nil {
			return
		}
		answer := "ok\n"
		if err := p.mount(strings.TrimSuffix(string(buf[:n]), "\n"), &mounted); err != nil {
			answer = strings.ReplaceAll(err.Error(), "\n", " ") + "\n"
		}
		if _, err := io.WriteString(requests, answer); err != nil {
			return
		}
	}
}

// maxRequest bounds a request and an answer, in bytes.
const maxRequest = 4096

func (p Policy) mount(dir string, mounted *bool) error {
	if path.Clean(dir) != dir || !p.writable(path.Dir(dir)) {
		return fmt.Errorf("mount %q: not a directory of jobs", dir)
	}
	if *mounted {
		if err := unix.Unmount(p.Here, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", p.Here, err)
		}
		*mounted = false
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("clone tree %s: %w", dir, err)
	}
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, p.Here, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	*mounted = true
	return nil
}

func (p Policy) writable(dir string) bool {
	for _, b := range p.Binds {
		if b.Writable && b.To == dir {
			return true
		}
	}
	return false
}

// Ask has a keeper mount a directory, as it is called in the slot's namespaces.
func Ask(keeper *os.File, dir string) error {
	if len(dir) >= maxRequest {
		return fmt.Errorf("mount session: path of %d bytes, want less than %d", len(dir), maxRequest)
	}
	if _, err := io.WriteString(keeper, dir+"\n"); err != nil {
		return fmt.Errorf("ask keeper: %w", err)
	}
	var buf [maxRequest]byte
	n, err := keeper.Read(buf[:])
	if err != nil {
		return fmt.Errorf("hear keeper: %w", err)
	}
	if answer := strings.TrimSuffix(string(buf[:n]), "\n"); answer != "ok" {
		return errors.New("keeper: " + answer)
	}
	return nil
}
