package fleettest

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// scenariosFile pins what the API answers: sequences of requests with their
// answers. `why` says where that differs from the service whose API this is.
// In strings <id> is a fresh session id and <new> the last fork's. In an answer
// every key listed must agree and more are fine; {"$any":true} is anything,
// {"$contains":s} a string with s in it, {"$text":s} a body that is no JSON,
// {"$repeat":[s,n]} s n times.
//
//go:embed testdata/api.jsonl
var scenariosFile []byte

type scenario struct {
	Name  string `json:"scenario"`
	Why   string `json:"why"`
	Steps []step `json:"steps"`
}

type step struct {
	Send   string `json:"send"`
	With   any    `json:"with"`
	Raw    string `json:"raw"`
	Status int    `json:"status"`
	Answer any    `json:"answer"`
}

func loadScenarios() ([]scenario, error) {
	var all []scenario
	sc := bufio.NewScanner(bytes.NewReader(scenariosFile))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var s scenario
		d := json.NewDecoder(bytes.NewReader(sc.Bytes()))
		d.UseNumber()
		if err := d.Decode(&s); err != nil {
			return nil, fmt.Errorf("scenario %d: %w", len(all)+1, err)
		}
		all = append(all, s)
	}
	return all, sc.Err()
}

// play sends the steps of a scenario, to the next of the URLs each time, and
// returns what disagrees.
func (s *scenario) play(client *http.Client, urls []string) error {
	names := map[string]string{"<id>": protocol.NewUUID(), "<new>": ""}
	for i, st := range s.Steps {
		status, text, err := st.send(client, urls[i%len(urls)], names)
		if err != nil {
			return fmt.Errorf("step %d, %s: %w", i, st.Send, err)
		}
		var body any = text
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if d.Decode(&body) != nil {
			body = text
		}
		if m, ok := body.(map[string]any); ok {
			if id, ok := m["new_id"].(string); ok {
				names["<new>"] = id
			}
		}
		want := fill(st.Answer, names)
		if status != st.Status || !agrees(want, body, text) {
			return fmt.Errorf("step %d, %s: got %d %.1000s\nwant %d %.1000v", i, st.Send, status, text, st.Status, want)
		}
	}
	return nil
}

func (st *step) send(client *http.Client, base string, names map[string]string) (int, string, error) {
	method, path, _ := strings.Cut(st.Send, " ")
	var body io.Reader
	switch with := fill(st.With, names).(type) {
	case map[string]any:
		if method == http.MethodGet {
			q := url.Values{}
			for k, v := range with {
				q.Set(k, fmt.Sprint(v))
			}
			path += "?" + q.Encode()
			break
		}
		data, err := json.Marshal(with)
		if err != nil {
			return 0, "", err
		}
		body = bytes.NewReader(data)
	case nil:
		if method == http.MethodPost {
			body = strings.NewReader(st.Raw)
		}
	default:
		data, err := json.Marshal(with)
		if err != nil {
			return 0, "", err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequest(method, base+path, body)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// fill puts names and repetitions in.
func fill(v any, names map[string]string) any {
	switch v := v.(type) {
	case string:
		for name, value := range names {
			v = strings.ReplaceAll(v, name, value)
		}
		return v
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = fill(v[i], names)
		}
		return out
	case map[string]any:
		if r, ok := v["$repeat"].([]any); ok {
			n, _ := r[1].(json.Number).Int64()
			return strings.Repeat(r[0].(string), int(n))
		}
		out := map[string]any{}
		for k := range v {
			out[k] = fill(v[k], names)
		}
		return out
	}
	return v
}

// agrees compares an answer with what is wanted. A traceback below an error's
// first line doesn't count.
func agrees(want, got any, text string) bool {
	switch want := want.(type) {
	case map[string]any:
		if want["$any"] != nil {
			return true
		}
		if s, ok := want["$text"].(string); ok {
			return text == s
		}
		if s, ok := want["$contains"].(string); ok {
			g, ok := got.(string)
			return ok && strings.Contains(g, s)
		}
		g, ok := got.(map[string]any)
		if !ok {
			return false
		}
		for k, w := range want {
			if v, there := g[k]; !there || !agrees(w, v, "") {
				return false
			}
		}
		return true
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(want) {
			return false
		}
		for i := range want {
			if !agrees(want[i], g[i], "") {
				return false
			}
		}
		return true
	case string:
		g, ok := got.(string)
		if before, _, found := strings.Cut(g, "\nTraceback (most recent call last)"); found && !strings.Contains(want, "Traceback") {
			g = strings.TrimRight(before, "\n")
		}
		return ok && g == want
	}
	return reflect.DeepEqual(want, got)
}
