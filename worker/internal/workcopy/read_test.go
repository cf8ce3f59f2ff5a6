package workcopy

import (
	"strings"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/worker/internal/durable"
)

// What a read finds is stored when it is answered, also if the change is in the
// directory only, and not in the journal yet.
func TestReadWaitsForChangeUnderWay(t *testing.T) {
	r := newRig(t)
	a := r.worker("a")
	r.own("s", "a", 1, true)
	a.write("s", 1, "f", "before")
	h := a.use("s", 1)
	defer h.Release()
	h.c.order.Lock()
	if err := h.Session.WriteFile("f", []byte("after")); err != nil {
		t.Fatal(err)
	}
	before := r.messages()
	got := make(chan string, 1)
	go func() {
		data, err := h.ReadFile("f")
		if err != nil || r.messages() == before {
			t.Errorf("read %q %v with %d messages stored, want more than %d", data, err, r.messages(), before)
		}
		got <- string(data)
	}()
	select {
	case <-got:
		t.Error("answered before the change was in the journal")
		got <- "after"
	case <-time.After(20 * time.Millisecond): // time for the fault to show; right code waits
	}
	content, err := h.c.m.Store.Put(t.Context(), strings.NewReader("after"))
	if err != nil {
		t.Error(err)
	}
	e := durable.Entry{Path: "f", Mode: 0o644}
	e.SetContent(content)
	h.journal.Stage([]durable.Entry{e}, nil) // the reader stores it, since it waits for it
	h.c.order.Unlock()
	if data := <-got; data != "after" {
		t.Errorf("read %q", data)
	}
}
