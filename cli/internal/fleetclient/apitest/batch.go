package apitest

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// batch is one request to /evaluate_batch. Faults are asked for it, and for every
// line as for a request to /evaluate_code.
type batch struct {
	control *http.ResponseController

	mu     sync.Mutex
	out    http.ResponseWriter
	ended  bool
	cut    bool
	detail string
}

// lineWriter takes what answers a line.
type lineWriter struct {
	*httptest.ResponseRecorder
	batch *batch
}

// EndBatch answers a line of a batch with a 503, and ends the batch as a server
// does that stops: lines that were read are answered, the last says so.
func EndBatch(w http.ResponseWriter, detail string) {
	Answer(w, http.StatusServiceUnavailable, map[string]string{"detail": detail})
	w.(*lineWriter).batch.end(false, detail)
}

// end ends the reading, and with cut also the writing.
func (b *batch) end(cut bool, detail string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended, b.cut, b.detail = true, b.cut || cut, detail
	b.control.SetReadDeadline(time.Now())
}

// write writes a line of the answer.
func (b *batch) write(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.cut {
		fmt.Fprintln(b.out, line)
		b.control.Flush()
	}
}

func (s *Server) batch(t testing.TB, w http.ResponseWriter, r *http.Request, number func(path string) int64, fault Fault) {
	b := &batch{control: http.NewResponseController(w), out: w}
	w.WriteHeader(http.StatusOK)
	b.control.Flush()
	in := bufio.NewScanner(r.Body)
	in.Buffer(nil, 1<<20)
	count := 0
	var lines sync.WaitGroup
	for in.Scan() {
		request := Request{Path: "/evaluate_code", Number: number("/evaluate_code")}
		if err := json.Unmarshal(in.Bytes(), &request); err != nil {
			t.Errorf("a batch has a bad line: %v", err)
		}
		index := count
		count++
		lines.Go(func() {
			answer := &lineWriter{httptest.NewRecorder(), b}
			if fault == nil || !fault(answer, request) {
				status, value := s.answer(request)
				Answer(answer, status, value)
			}
			b.write(line(index, answer.ResponseRecorder))
		})
	}
	lines.Wait()
	b.mu.Lock()
	cut := b.cut || in.Err() != nil && !b.ended // or the client went away
	last := fmt.Sprintf(`{"done":%t,"count":%d,"detail":%q}`, !b.ended, count, b.detail)
	b.mu.Unlock()
	if cut {
		panic(http.ErrAbortHandler)
	}
	s.Batches.Add(1)
	b.write(last)
}

// Duplex lets a handler answer before it has received the request's body, which
// is then not to be received at all.
func Duplex(t testing.TB, w http.ResponseWriter) {
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		t.Error(err)
	}
	w.Header().Set("Connection", "close")
}

// line makes the line of an answer out of the answer to a request.
func line(index int, answer *httptest.ResponseRecorder) string {
	body := answer.Body.Bytes()
	if answer.Code == http.StatusOK {
		if !jsontext.Value(body).IsValid() {
			body, _ = json.Marshal(string(body)) // a string always encodes
		}
		return fmt.Sprintf(`{"index":%d,"status":200,"result":%s}`, index, body)
	}
	var refused struct {
		Detail string `json:"detail"`
	}
	if err := json.Unmarshal(body, &refused); err != nil {
		panic(fmt.Sprintf("decode a refusal: %v", err)) // a mistake of the test
	}
	return fmt.Sprintf(`{"index":%d,"status":%d,"detail":%q}`, index, answer.Code, refused.Detail)
}
