package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gradefleet/gradefleet/gateway/server"
)

// A batch that is refused is told so while it is still being sent: its client may
// wait for answers before it sends more.
func TestRefusedBatchIsAnsweredAtOnce(t *testing.T) {
	c := newCluster(t, 1, func(cfg *server.Config) { cfg.APIKeys = append(cfg.APIKeys, "k") })
	body, in := io.Pipe()
	defer in.Close()
	go io.WriteString(in, lineOf("s", ""))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.gateways[0].url+"/evaluate_batch", body)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan *http.Response, 1)
	go func() {
		resp, err := c.client.Do(r)
		if err != nil {
			t.Error(err)
			return
		}
		answered <- resp
	}()
	resp := within(t, "answer", answered)
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); resp.StatusCode != 401 || !strings.Contains(string(text), "API key") {
		t.Errorf("answered %d %s %v", resp.StatusCode, text, err)
	}
}

// A refused request is answered, and not only cut, also to a client that sends all
// of a large body before it reads.
func TestRefusedLargeBodyIsAnswered(t *testing.T) {
	c := newCluster(t, 1, func(cfg *server.Config) {
		cfg.APIKeys = append(cfg.APIKeys, "k", "hasty")
		cfg.CallerRate, cfg.CallerBurst = 0.001, 1
	})
	address := strings.TrimPrefix(c.gateways[0].url, "http://")
	const size = 32 << 20 // more than sockets hold
	send := func(head string, size int) *http.Response {
		t.Helper()
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		request := fmt.Sprintf("%s\r\nHost: g\r\nContent-Length: %d\r\n\r\n%s", head, size, strings.Repeat("x", size))
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatalf("%s: cut while it was sent: %v", head, err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", head, err)
		}
		return resp
	}
	if resp := send("POST /run HTTP/1.1\r\nX-API-Key: hasty", 1); resp.StatusCode != 422 {
		t.Fatalf("the first request was answered %d", resp.StatusCode)
	}
	for head, want := range map[string]int{
		"POST /run HTTP/1.1": 401, "POST /nothing HTTP/1.1": 404, "PUT /run HTTP/1.1": 405, "POST /run HTTP/1.1\r\nX-API-Key: hasty": 429,
	} {
		if resp := send(head, size); resp.StatusCode != want {
			t.Errorf("%q was answered %d, want %d", head, resp.StatusCode, want)
		}
	}
}
