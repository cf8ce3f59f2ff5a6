package up

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// An address that is in use is told, once.
func TestTakenAddress(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir, err := os.MkdirTemp("", "gradefleet-up-") // sessions' users can't reach t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var cfg Config
	p, err := kong.New(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse([]string{"--listen", taken.Addr().String(), "--monitor", "127.0.0.1:0", "--data", dir, "--slots", "1", "--isolation", "basic"}); err != nil {
		t.Fatal(err)
	}
	err = Run(t.Context(), cfg, io.Discard, io.Discard)
	if err != nil && strings.Contains(err.Error(), "find Python") {
		t.Skip(err)
	}
	if err == nil || strings.Count(err.Error(), "address already in use") != 1 {
		t.Errorf("Run returned %v, want that the address is in use, once", err)
	}
}
