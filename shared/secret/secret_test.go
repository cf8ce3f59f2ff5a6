package secret

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestNeverPrinted(t *testing.T) {
	s := String("hunter2")
	var b bytes.Buffer
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "password", s)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "password", s)
	fmt.Fprintf(&b, "%v %s %+v %#v %q", s, s, struct{ P String }{s}, s, s)
	j, err := json.Marshal(map[string]any{"p": s})
	if err != nil {
		t.Fatal(err)
	}
	b.Write(j)
	if strings.Contains(b.String(), "hunter2") || strings.Count(b.String(), redacted) < 7 {
		t.Errorf("printed: %s", b.String())
	}
	if s.Reveal() != "hunter2" || !s.Equal("hunter2") || s.Equal("hunter") {
		t.Error("the secret itself is not as given")
	}
}
