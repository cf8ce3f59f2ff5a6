package server_test

import (
	"io"
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
