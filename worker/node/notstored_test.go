package node

import (
	"encoding/json"
	"testing"
)

func TestNotStored(t *testing.T) {
	const why = "Not \"stored\":\ttoo deep"
	for body, stderr := range map[string]string{
		`{"stdout":"a","stderr":"","id":"s","exit_code":0}`:                     why,
		`{"stdout":"\"stderr\":\"x\"","stderr":"b\\\"","id":"s","exit_code":0}`: "b\\\"\n" + why,
		`{"passed":true,"case_results":[{"stderr":"c"}],"error":null}`:          "",
	} {
		var m struct {
			Stderr string  `json:"stderr"`
			Exit   *int    `json:"exit_code"`
			Note   string  `json:"not_stored"`
			Error  *string `json:"error"`
		}
		got := notStored([]byte(body), why)
		if err := json.Unmarshal(got, &m); err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		if m.Note != why || m.Stderr != stderr {
			t.Errorf("%s became %s", body, got)
		}
	}
	if got := notStored([]byte("broken"), why); string(got) != "broken" {
		t.Errorf("what is no answer became %s", got)
	}
}
