package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/worker/internal/sandbox/namespace"
	"github.com/gradefleet/gradefleet/worker/internal/sandbox/proctree"
)

// endName is argv[0] of a process that becomes a session's user and ends every
// process of that user, at once: kill(2) with -1 leaves none a chance to fork.
const endName = "gradefleet-end"

func init() {
	if len(os.Args) != 2 || os.Args[0] != endName {
		return
	}
	uid, err := strconv.Atoi(os.Args[1])
	if err == nil && uid > 0 {
		err = unix.Setresuid(uid, uid, uid)
	}
	if err == nil {
		err = unix.Kill(-1, unix.SIGKILL)
	}
	if err != nil && err != unix.ESRCH {
		fmt.Fprintln(os.Stderr, err)
		unix.Exit(1)
	}
	unix.Exit(0)
}

// endTimeout bounds how long the processes beneath a lost fork server may take
// to die. They do for certain, but on a busy machine not soon; those not collected
// by then would count against their user's limit of processes for good.
const endTimeout = 20 * time.Second

// EndUser ends what a lost fork server may have left of the session's user:
// orphans that it can't look after any more. Who else has that user is spared,
// such as a job of another worker on this machine, where a namespace or a
// control group tells them apart.
func (r *Room) EndUser() error {
	if !r.c.p.has(Users) || r.at.UID <= 0 {
		return nil
	}
	switch {
	case r.c.p.kind != namespace.None: // they ended with the server, the first process of theirs
		return reapUser(r.at.UID)
	case r.c.group != nil:
		if err := r.c.group.Kill(); err != nil {
			return fmt.Errorf("end processes of user %d: %w", r.at.UID, err)
		}
		return reapUser(r.at.UID)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{endName, strconv.Itoa(r.at.UID)}
	cmd.Env = []string{}
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("end processes of user %d: %w: %.200s", r.at.UID, err, out)
	}
	return reapUser(r.at.UID)
}

// reapUser waits for the dead of a session's user that came to this process,
// the next subreaper when a fork server is gone. As zombies they would count
// against the user's limit of processes.
func reapUser(uid int) error {
	deadline := time.Now().Add(endTimeout)
	for {
		left, err := childrenOf(uid)
		if err != nil || len(left) == 0 {
			return err
		}
		for _, pid := range left {
			unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("wait for processes of user %d: %d are not dead %v after their kill", uid, len(left), endTimeout)
		}
		time.Sleep(reapInterval)
	}
}

// reapInterval is how often the dying are looked at: seldom needed twice.
const reapInterval = 2 * time.Millisecond

// childrenOf lists the children of this process that are a user's.
func childrenOf(uid int) ([]int, error) {
	all, err := proctree.Descendants(os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("list children: %w", err)
	}
	var list []int
	for _, pid := range all {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err == nil && bytes.Contains(status, fmt.Appendf(nil, "\nPPid:\t%d\n", os.Getpid())) && bytes.Contains(status, fmt.Appendf(nil, "\nUid:\t%d\t", uid)) {
			list = append(list, pid)
		}
	}
	return list, nil
}

// End ends the fork server and everything beneath it, without asking it.
func (c *Cell) End(server int) error {
	// The first process of a pid namespace takes all others with it.
	if c.p.kind != namespace.None {
		if err := unix.Kill(server, unix.SIGKILL); err != nil && err != unix.ESRCH {
			return fmt.Errorf("kill fork server: %w", err)
		}
		return nil
	}
	if c.group != nil {
		if err := c.group.Kill(); err != nil {
			return fmt.Errorf("end fork server: %w", err)
		}
		return nil
	}
	if _, err := proctree.End(server, endTimeout); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end fork server: %w", err)
	}
	return nil
}
