package durable

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

func TestContents(t *testing.T) {
	b := newBus(t)
	s := newStore(t, b, "w", time.Hour)
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, InlineBytes, InlineBytes + 1, protocol.BlobBytes, protocol.BlobBytes + 1, 3 * protocol.BlobBytes, 5*protocol.BlobBytes + 17} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		c, err := s.Put(t.Context(), bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if c.Size != int64(size) || (size <= InlineBytes) != (len(c.Blobs) == 0) {
			t.Errorf("%d bytes: size %d, %d blobs", size, c.Size, len(c.Blobs))
		}
		var got bytes.Buffer
		if err := s.Get(t.Context(), c, &got); err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("%d bytes: got %d others, %v", size, got.Len(), err)
		}
		for name, other := range map[string][]byte{"the same": data, "longer": append(slices.Clone(data), 1), "shorter": data[:max(0, size-1)], "changed": flip(data)} {
			same, err := c.Same(bytes.NewReader(other))
			if err != nil || same != bytes.Equal(other, data) {
				t.Errorf("%d bytes, %s: same %v, %v", size, name, same, err)
			}
		}
	}
	before, err := b.Blobs.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), bytes.NewReader(make([]byte, 3*protocol.BlobBytes))); err != nil {
		t.Fatal(err)
	}
	after, err := b.Blobs.Info(t.Context())
	if err != nil || after.State.LastSeq != before.State.LastSeq+1 && after.State.Msgs != before.State.Msgs+1 {
		t.Errorf("three pieces of zeros are %d messages, want one (%v)", after.State.Msgs-before.State.Msgs, err)
	}
	broken := errors.New("broken disk")
	if _, err := s.Put(t.Context(), io.MultiReader(bytes.NewReader(make([]byte, protocol.BlobBytes)), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("error %v, want that of the reader", err)
	}
	if err := s.Get(t.Context(), Content{Size: 5, Blobs: []Digest{{1}}}, io.Discard); !errors.Is(err, ErrMissing) {
		t.Errorf("a content that isn't there: %v, want ErrMissing", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func flip(data []byte) []byte {
	other := slices.Clone(data)
	if len(other) > 0 {
		other[len(other)-1]++
	}
	return other
}

// What was stored lately isn't stored again, and is before it could be collected.
func TestRecentlyStored(t *testing.T) {
	r := recent{turn: time.Minute}
	now := time.Unix(1000, 0)
	r.add(Digest{1}, now)
	for after, want := range map[time.Duration]bool{0: true, 59 * time.Second: true, 61 * time.Second: true, 3 * time.Minute: false} {
		fresh := recent{turn: time.Minute}
		fresh.add(Digest{1}, now)
		if got := fresh.has(Digest{1}, now.Add(after)); got != want {
			t.Errorf("after %v: %v, want %v", after, got, want)
		}
	}
	// The longest that one can stay: asked for just before each turn would end.
	late := recent{turn: time.Minute}
	late.add(Digest{1}, now)
	late.has(Digest{2}, now.Add(2*time.Minute-1))
	if late.has(Digest{1}, now.Add(3*time.Minute)) {
		t.Error("still there after three turns")
	}
	for i := range 500 { // looked for again and again it doesn't get younger
		if at := now.Add(time.Duration(i) * time.Second); r.has(Digest{1}, at) && at.Sub(now) > 2*r.turn {
			t.Fatalf("still there after %v", at.Sub(now))
		}
	}
}
