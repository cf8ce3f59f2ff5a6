// Package apitest imitates a server of the documented API, for tests of what
// drives one: it grades additions, remembers files, knows one command, and
// misbehaves where a test wants it to.
package apitest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-json-experiment/json"
)

// Server is a running imitation.
type Server struct {
	URL string
	// Requests counts what came, pings too.
	Requests atomic.Int64
	// Batches counts batches that came to their documented end.
	Batches atomic.Int64

	mu       sync.Mutex
	sessions map[string]map[string]string // files by session
}

// Request is one request to the API; what it doesn't have is empty.
type Request struct {
	Path       string `json:"-"`
	Number     int64  `json:"-"` // of this path, from 1
	ID         string `json:"id"`
	Code       string `json:"code"`
	EntryPoint string `json:"entry_point"`
	Cases      []struct {
		Input  string `json:"input"`
		Output string `json:"output"`
	} `json:"io_cases"`
	Command  string `json:"cmd"`
	FilePath string `json:"rel_path"`
	Content  string `json:"content"`
}

// Fault answers a request in another way than it should be; false leaves it to
// the imitation. It is called by several goroutines.
type Fault func(w http.ResponseWriter, r Request) bool

// New starts a server that ends with the test. A nil fault is none.
func New(t testing.TB, fault Fault) *Server {
	s := &Server{sessions: map[string]map[string]string{}}
	var mu sync.Mutex
	numbers := map[string]int64{}
	number := func(path string) int64 {
		mu.Lock()
		defer mu.Unlock()
		numbers[path]++
		return numbers[path]
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Requests.Add(1)
		if r.URL.Path == "/evaluate_batch" {
			Duplex(t, w)
			if fault == nil || !fault(w, Request{Path: r.URL.Path, Number: number(r.URL.Path)}) {
				s.batch(t, w, r, number, fault)
			}
			return
		}
		request := Request{ID: r.FormValue("id"), FilePath: r.FormValue("rel_path")}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client went away
		}
		if len(body) > 0 {
			if err := json.Unmarshal(body, &request); err != nil {
				t.Errorf("%s got a bad body: %v", r.URL.Path, err)
			}
		}
		request.Path, request.Number = r.URL.Path, number(r.URL.Path)
		if fault != nil && fault(w, request) {
			return
		}
		status, answer := s.answer(request)
		Answer(w, status, answer)
	}))
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// Answer sends a status and a value as JSON.
func Answer(w http.ResponseWriter, status int, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("encode answer: %v", err)) // a mistake of the test
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(text)
}

// Reset cuts the connection with a reset, without an answer. For a line of a batch
// it cuts the batch's connection, with all lines that have no answer yet.
func Reset(w http.ResponseWriter) {
	if l, ok := w.(*lineWriter); ok {
		l.batch.end(true, "")
		return
	}
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(fmt.Sprintf("take over connection: %v", err))
	}
	conn.(interface{ SetLinger(int) error }).SetLinger(0)
	conn.Close()
}

// Verdicts is an answer to an evaluate request: these verdicts, and that all
// cases passed or not.
func Verdicts(cases ...bool) any {
	all := true
	results := make([]any, len(cases))
	for i, passed := range cases {
		all = all && passed
		results[i] = map[string]any{"passed": passed, "got": i, "expected": i, "error": nil, "case": i}
	}
	return map[string]any{"passed": all, "case_results": results, "error": nil}
}

func (s *Server) answer(r Request) (int, any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	files := s.sessions[r.ID]
	switch r.Path {
	case "/":
		return http.StatusOK, map[string]any{"message": "pong"}
	case "/evaluate_code":
		return http.StatusOK, Verdicts(additions(r)...)
	case "/write_file":
		if files == nil {
			files = map[string]string{}
			s.sessions[r.ID] = files
		}
		files[r.FilePath] = r.Content
		return http.StatusOK, map[string]any{"success": true, "id": r.ID, "rel_path": r.FilePath}
	case "/read_file":
		content, ok := files[r.FilePath]
		if !ok {
			return http.StatusNotFound, map[string]any{"detail": "File not found"}
		}
		return http.StatusOK, map[string]any{"content": content, "id": r.ID}
	case "/run":
		if files == nil {
			return http.StatusBadRequest, map[string]any{"detail": "Session does not exist"}
		}
		if r.Command != "echo hi" {
			return http.StatusOK, map[string]any{"stdout": "", "stderr": "unknown command", "id": r.ID}
		}
		return http.StatusOK, map[string]any{"stdout": "hi\n", "stderr": "", "id": r.ID}
	default:
		return http.StatusNotFound, map[string]any{"detail": "Not Found"}
	}
}

// additions grades cases of the form a=1, b=2.
func additions(r Request) []bool {
	verdicts := make([]bool, len(r.Cases))
	for i, c := range r.Cases {
		var a, b, sum int
		_, inputErr := fmt.Sscanf(c.Input, "a=%d, b=%d", &a, &b)
		_, outputErr := fmt.Sscan(c.Output, &sum)
		verdicts[i] = inputErr == nil && outputErr == nil && a+b == sum
	}
	return verdicts
}
