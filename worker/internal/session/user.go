package session

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// asUser runs fn with the file system identity (fsuid, fsgid) of a user, so
// that the kernel checks every access and makes every file as that user; with
// uid -1, as the worker. Root's rights over other users' files are off meanwhile.
//
// fn must do its file operations in its own goroutine. The identity is the
// thread's; the goroutine is locked to it, and the Go runtime starts no threads
// from a locked one. The thread keeps root's supplementary groups, which is why
// files are also checked for their owner.
//
// Changing identity has side effects in Linux: the process can't be traced or
// dumped by others than root any more, and the thread forgets the signal it was
// to get when its parent dies (PR_SET_PDEATHSIG).
func asUser(uid int, fn func() error) error {
	if uid < 0 {
		return fn()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// On the way back a thread that kept the wrong identity must not run
	// anything else, so that is a panic; returning to one's own effective id
	// needs no capability and is always allowed.
	defer func() {
		if err := setFSIDs(os.Geteuid(), os.Getegid()); err != nil {
			panic(fmt.Sprintf("return to the worker's user: %v", err))
		}
	}()
	if err := setFSIDs(uid, uid); err != nil {
		return err
	}
	return fn()
}

// setFSIDs changes the thread's file system identity. The system calls report
// no errors; asking for an impossible id gives back the one in force.
func setFSIDs(uid, gid int) error {
	unix.SetfsgidRetGid(gid)
	if now, _ := unix.SetfsgidRetGid(-1); now != gid {
		return fmt.Errorf("set file system group to %d: it is %d; the worker needs CAP_SETGID to give sessions their own users", gid, now)
	}
	unix.SetfsuidRetUid(uid)
	if now, _ := unix.SetfsuidRetUid(-1); now != uid {
		return fmt.Errorf("set file system user to %d: it is %d; the worker needs CAP_SETUID to give sessions their own users", uid, now)
	}
	return nil
}
