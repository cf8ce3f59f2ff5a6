package protocol

import "strconv"

// News is what a worker tells the gateway that waits for a job, besides the
// result. It goes to the job's reply subject.
type News struct {
	// Tries is 1 if a worker begins the job although it was delivered before, -1
	// if it gives it back because it stops: deliveries that were no try, since
	// they were lost, say, don't count against a job.
	Tries int
	// Sequence is where the job is now in the stream of jobs, if a worker put it
	// at its queue's end; else 0.
	Sequence uint64
}

// Header returns the headers of a message that has nothing else.
func (n News) Header(job string) map[string][]string {
	h := map[string][]string{HeaderJob: {job}, HeaderBegun: {strconv.Itoa(n.Tries)}}
	if n.Sequence != 0 {
		h[HeaderSequence] = []string{strconv.FormatUint(n.Sequence, 10)}
	}
	return h
}

// ParseNews reads a message to a job's reply subject; false if it is a result.
func ParseNews(header map[string][]string) (News, bool) {
	text := first(header, HeaderBegun)
	if text == "" {
		return News{}, false
	}
	var n News
	var err error
	if n.Tries, err = strconv.Atoi(text); err != nil {
		n.Tries = 1
	}
	n.Sequence, _ = strconv.ParseUint(first(header, HeaderSequence), 10, 64)
	return n, true
}
