package freeport

import (
	"net"
	"slices"
	"testing"
)

func TestFind(t *testing.T) {
	ports, err := Find(20)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ports)
	if len(slices.Compact(ports)) != 20 || ports[0] < first || ports[19] >= last {
		t.Errorf("ports %v, want 20 from %d to %d", ports, first, last)
	}
	taken, err := net.Listen("tcp", Address(ports[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := Find(last - first); err == nil {
		t.Error("a port was found that is taken")
	}
}
