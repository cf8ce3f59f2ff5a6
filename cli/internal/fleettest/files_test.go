package fleettest

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
)

// get reads a file through the API.
func (f *fleet) get(t *testing.T, q url.Values) (int, map[string]any) {
	t.Helper()
	resp, err := f.client.Get(f.urls[0] + "/read_file?" + q.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer
}

func TestFilesThatAreNoText(t *testing.T) {
	f := newFleet(t, 1, 1)
	write := func(body map[string]string, want int, detail string) {
		t.Helper()
		status, answer, err := post(f.client, f.urls[0]+"/write_file", body)
		if err != nil || status != want || !strings.Contains(string(answer), detail) {
			t.Errorf("write %v: %d %s %v, want %d with %q", body, status, answer, err, want, detail)
		}
	}
	bytes := "\x00\xff\xfebinary\r\n"
	encoded := base64.StdEncoding.EncodeToString([]byte(bytes))
	write(map[string]string{"id": "s", "rel_path": "b", "content": encoded, "encoding": "base64"}, 200, "success")
	write(map[string]string{"id": "s", "rel_path": "c", "content": "not base64!", "encoding": "base64"}, 422, "not base64")
	write(map[string]string{"id": "s", "rel_path": "c", "content": "x", "encoding": "rot13"}, 422, "encoding")
	if status, answer := f.get(t, url.Values{"id": {"s"}, "rel_path": {"b"}}); status != 415 || !strings.Contains(answer["detail"].(string), "encoding=base64") {
		t.Errorf("as text: %d %v", status, answer)
	}
	if status, answer := f.get(t, url.Values{"id": {"s"}, "rel_path": {"b"}, "encoding": {"base64"}}); status != 200 || answer["content"] != encoded || answer["encoding"] != "base64" {
		t.Errorf("as base64: %d %v", status, answer)
	}
	status, answer, _ := post(f.client, f.urls[0]+"/run", map[string]string{"id": "s", "cmd": "wc -c < b; mkfifo p; ln -s /dev/zero z; ln -s /etc/passwd l; mkdir d"})
	if status != 200 || !strings.Contains(string(answer), `"stdout":"11\n"`) {
		t.Errorf("run: %d %s", status, answer)
	}
	for path, want := range map[string]int{"p": 400, "z": 400, "l": 400, "d": 404} {
		if status, answer := f.get(t, url.Values{"id": {"s"}, "rel_path": {path}}); status != want || answer["detail"] == "" {
			t.Errorf("read %s: %d %v, want %d", path, status, answer, want)
		}
	}
	write(map[string]string{"id": "s", "rel_path": "p", "content": "x"}, 400, "detail")
	write(map[string]string{"id": "s", "rel_path": "l", "content": "x"}, 400, "detail")
	write(map[string]string{"id": "s", "rel_path": "d", "content": "x"}, 409, "detail")
}

// A forked session has the files, and neither changes the other.
func TestForkIsACopy(t *testing.T) {
	f := newFleet(t, 1, 2)
	do := func(path string, body map[string]string) map[string]any {
		t.Helper()
		status, raw, err := post(f.client, f.urls[0]+path, body)
		var answer map[string]any
		if err != nil || status != 200 || json.Unmarshal(raw, &answer) != nil {
			t.Fatalf("%s %v: %d %s %v", path, body, status, raw, err)
		}
		return answer
	}
	do("/write_file", map[string]string{"id": "s", "rel_path": "a", "content": "one"})
	do("/run", map[string]string{"id": "s", "cmd": "chmod 755 a; mkdir -p x/y; echo deep > x/y/z; ln -s a link"})
	id := do("/fork_session", map[string]string{"id": "s"})["new_id"].(string)
	do("/run", map[string]string{"id": "s", "cmd": "echo two > a; rm -r x"})
	if got := do("/run", map[string]string{"id": id, "cmd": "cat a link x/y/z; stat -c %a a"})["stdout"]; got != "oneonedeep\n755\n" {
		t.Errorf("the fork has %q", got)
	}
}

// A file whose answer is larger than a message is refused, not lost.
func TestAnswerTooLarge(t *testing.T) {
	f := newFleet(t, 1, 1)
	if status, answer, err := post(f.client, f.urls[0]+"/write_file", map[string]string{"id": "s", "rel_path": "a", "content": ""}); status != 200 {
		t.Fatalf("write: %d %s %v", status, answer, err)
	}
	// In JSON each of these bytes takes six.
	if status, answer, err := post(f.client, f.urls[0]+"/run", map[string]string{"id": "s", "cmd": "head -c 4000000 /dev/zero > zeros"}); status != 200 {
		t.Fatalf("run: %d %s %v", status, answer, err)
	}
	if status, answer := f.get(t, url.Values{"id": {"s"}, "rel_path": {"zeros"}}); status != 413 || !strings.Contains(answer["detail"].(string), "base64") {
		t.Errorf("as text: %d %.200v", status, answer)
	}
	if status, answer := f.get(t, url.Values{"id": {"s"}, "rel_path": {"zeros"}, "encoding": {"base64"}}); status != 200 {
		t.Errorf("as base64: %d %.200v", status, answer)
	}
}
