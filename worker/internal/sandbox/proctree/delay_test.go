package proctree

import (
	"os"
	"testing"
	"time"
)

func TestDelay(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1235045 2346048 6\n": 2346048, "0 0 0": 0, "": 0, "1": 0, "1 x 2": 0, "1 -5 2": 0,
	} {
		if got := parseDelay([]byte(text)); got != want {
			t.Errorf("%q gives %v, want %v", text, got, want)
		}
	}
	if got := Delay(1 << 30); got != 0 {
		t.Errorf("a process that isn't there waited %v", got)
	}
	if got := Delay(os.Getpid()); got < 0 || got > time.Hour {
		t.Errorf("what is beneath the test waited %v", got)
	}
}
