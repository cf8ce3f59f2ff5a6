package seccomp

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tellers is a program whose threads make calls that are told of, all at once.
const tellers = `
import ctypes, os, threading
unshare = ctypes.CDLL(None, use_errno=True).unshare
refused = []
def work():
    n = 0
    for _ in range(1500):
        n += unshare(0x10000000) == -1 and ctypes.get_errno() == 1
    refused.append(n)
threads = [threading.Thread(target=work) for _ in range(8)]
for t in threads: t.start()
for t in threads: t.join()
print(sum(refused))
`

// pester sends a thread a signal every few microseconds. It is another process'
// work: a goroutine would take the Go scheduler's time.
const pester = `
import ctypes, time
libc = ctypes.CDLL(None)
libc.prctl(29, 1, 0, 0, 0)  # PR_SET_TIMERSLACK: sleeps are as short as they are to be
while libc.syscall(%d, %d, %d, %d) == 0: time.sleep(3e-6)
`

// Who waits for an answer gets it although signals, such as those with which Go's
// scheduler preempts, come while it is looked for and given.
func TestAnswersAmidSignals(t *testing.T) {
	need(t)
	needProgram(t, python)
	if !CanListen() {
		t.Skip("the kernel has no seccomp listeners")
	}
	cmd := child(t, os.Getuid(), order{Listen: true, Exec: []string{python, "-I", "-S", "-c", tellers}})
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	said := bufio.NewReader(out)
	var theirs int
	if _, err := fmt.Fscanln(said, &theirs); err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, theirs, 0)
	if err != nil {
		t.Skipf("its descriptor can't be had: %v", err)
	}
	threads := make(chan int, 2)
	answer := func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		threads <- unix.Gettid()
		for {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(poll, -1); err != nil || n == 0 {
				continue
			}
			switch {
			case poll[0].Revents&unix.POLLIN != 0:
				Refuse(fd)
			case poll[0].Revents&unix.POLLHUP != 0:
				return // all that have the filter are gone
			} // an error only: a signal interrupted the kernel's look
		}
	}
	done := make(chan struct{})
	go func() { defer close(done); answer() }()
	tid := <-threads
	signals := exec.Command(python, "-I", "-S", "-c", fmt.Sprintf(pester, unix.SYS_TGKILL, os.Getpid(), tid, int(unix.SIGURG)))
	if err := signals.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		signals.Process.Kill()
		signals.Wait()
	}()
	got := make(chan string, 1)
	go func() {
		rest, _ := io.ReadAll(said)
		got <- strings.TrimSpace(string(rest))
	}()
	select {
	case s := <-got:
		if s != "12000" {
			t.Errorf("%s calls of 12000 were refused", s)
		}
	case <-time.After(time.Minute):
		t.Error("a call is never answered")
		cmd.Process.Kill()
	}
	<-done
	unix.Close(fd)
}
