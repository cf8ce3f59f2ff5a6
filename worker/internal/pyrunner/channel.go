package pyrunner

import (
	"bytes"
	"time"

	"golang.org/x/sys/unix"
)

// interest is what is waited for at the channel.
func (r *run) interest() (events uint32) {
	if r.writing {
		events |= unix.EPOLLOUT
	}
	if r.next.IsZero() {
		events |= unix.EPOLLIN
	}
	return events
}

// flush sends what is to be sent, as far as there is room.
func (r *run) flush() {
	for len(r.send) > 0 {
		var rights []byte
		if r.ruleset > 0 {
			rights = unix.UnixRights(r.ruleset)
		}
		n, err := unix.SendmsgN(r.c.channel, r.send, rights, nil, unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			r.send, r.ruleset = r.send[n:], 0
			continue
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			if !r.writing {
				r.writing = true
				if !r.watched {
					r.watchAll()
				}
				r.watch(r.interest())
			}
			return
		default: // the child is gone or closed its end; its exit will tell
			r.send = nil
		}
	}
	if r.writing {
		r.writing = false
		r.watch(r.interest())
	}
}

func (r *run) watch(events uint32) {
	if r.eof {
		return
	}
	if err := r.s.poller.modify(r.c.channel, events); err != nil {
		r.s.lose(err)
	}
}

// readChannel takes in frames.
func (r *run) readChannel() {
	for {
		n, err := unix.Read(r.c.channel, r.scratch[:])
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			return
		}
		if err != nil || n == 0 {
			r.s.poller.remove(r.c.channel)
			r.eof = true
			return
		}
		if r.ending != EndedItself {
			continue // what it says now doesn't count
		}
		// The usual read is of whole frames, which need not be copied.
		data := r.scratch[:n]
		if len(r.in) > 0 {
			r.in = append(r.in, data...)
			data = r.in
		}
		rest := r.frames(data)
		r.in = append(r.in[:0], rest...)
		if n < len(r.scratch) {
			return
		}
	}
}

// frames handles the whole frames in data and returns what is left.
func (r *run) frames(data []byte) []byte {
	for {
		f, rest, ok, err := nextFrame(data, r.job.MaxFrame)
		if err != nil {
			r.end(EndedProtocol)
			return nil
		}
		if !ok {
			return data
		}
		data = rest
		if f.Kind == FrameFault {
			if f.Body, ok = bytes.CutPrefix(f.Body, r.job.Message.token()); !ok {
				r.end(EndedProtocol)
				return nil
			}
		}
		if r.ending == EndedItself {
			r.deadline, r.extended = time.Now().Add(r.job.Wall), false
		}
		if r.job.OnFrame == nil {
			continue
		}
		reply, next := r.job.OnFrame(f)
		if reply != nil {
			r.send = append(r.send, reply...)
			r.flush()
		}
		switch next {
		case Stop:
			r.end(EndedStopped)
			return nil
		case Protocol:
			r.end(EndedProtocol)
			return nil
		}
	}
}
