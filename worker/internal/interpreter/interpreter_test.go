package interpreter

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindNamesWhatItFound(t *testing.T) {
	i, err := Find(context.Background(), "", nil)
	if err != nil {
		t.Skip(err)
	}
	if !filepath.IsAbs(i.Path) || i.Version[1] < MinVersion[1] || len(i.SysPath) == 0 || !strings.Contains(i.String(), i.Path) {
		t.Errorf("found %+v", i)
	}
}

func TestOldOrBrokenInterpreters(t *testing.T) {
	tests := []struct{ name, script, want string }{
		{"too old", "#!/bin/sh\necho '{\"executable\": \"/x\", \"version\": [3, 9, 1]}'\n", "older than 3.11"},
		{"fails", "#!/bin/sh\necho boom >&2; exit 3\n", "boom"},
		{"no answer", "#!/bin/sh\necho hello\n", "read its answer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "python3")
			if err := os.WriteFile(path, []byte(tt.script), 0o755); err != nil {
				t.Fatal(err)
			}
			_, err := Find(context.Background(), path, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}
