package durable

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Content is what a file holds: Inline, or Blobs.
type Content struct {
	Size   int64
	Inline []byte
	Blobs  []Digest
}

// Content of a file's entry.
func (e *Entry) Content() Content { return Content{Size: e.Size, Inline: e.Inline, Blobs: e.Blobs} }

// SetContent makes c the content of an entry.
func (e *Entry) SetContent(c Content) { e.Size, e.Inline, e.Blobs = c.Size, c.Inline, c.Blobs }

// uploads is how many pieces of one file are stored at a time.
const uploads = 4

var pieces = sync.Pool{New: func() any { return new([protocol.BlobBytes]byte) }}

// Put stores a content. One that is small enough is only returned, to be kept
// in the journal.
func (s *Store) Put(ctx context.Context, r io.Reader) (c Content, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	var mu sync.Mutex // guards c.Blobs while pieces are stored
	places := make(chan struct{}, uploads)
	for ctx.Err() == nil {
		buf := pieces.Get().(*[protocol.BlobBytes]byte)
		n, err := io.ReadFull(r, buf[:])
		last := err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			pieces.Put(buf)
			return c, err
		}
		if c.Size == 0 && last && n <= InlineBytes {
			c = Content{Size: int64(n), Inline: bytes.Clone(buf[:n])}
			pieces.Put(buf)
			return c, nil
		}
		if n > 0 {
			mu.Lock()
			at := len(c.Blobs)
			c.Blobs = append(c.Blobs, Digest{})
			mu.Unlock()
			c.Size += int64(n)
			places <- struct{}{}
			wg.Go(func() {
				defer func() { <-places }()
				d, err := s.PutBlob(ctx, buf[:n])
				if err != nil {
					// The client may hold on to what it couldn't send.
					cancel(err)
					return
				}
				pieces.Put(buf)
				mu.Lock()
				c.Blobs[at] = d
				mu.Unlock()
			})
		}
		if last {
			break
		}
	}
	wg.Wait()
	return c, context.Cause(ctx)
}

// Same reports whether a reader has this content; it reads no more than needed.
func (c Content) Same(r io.Reader) (bool, error) {
	buf := pieces.Get().(*[protocol.BlobBytes]byte)
	defer pieces.Put(buf)
	for at := 0; ; at++ {
		n, err := io.ReadFull(r, buf[:])
		last := err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return false, err
		}
		if len(c.Blobs) == 0 {
			return last && bytes.Equal(buf[:n], c.Inline), nil
		}
		switch {
		case n == 0:
			return at == len(c.Blobs), nil
		case at == len(c.Blobs), Digest(sha256.Sum256(buf[:n])) != c.Blobs[at]:
			return false, nil
		case last:
			return at+1 == len(c.Blobs), nil
		}
	}
}

// Equal reports whether two contents are known to be the same. Contents may be
// the same and not known to be, one being inline.
func (c Content) Equal(d Content) bool {
	return c.Size == d.Size && slices.Equal(c.Blobs, d.Blobs) && bytes.Equal(c.Inline, d.Inline)
}

// Get writes a content to w.
func (s *Store) Get(ctx context.Context, c Content, w io.Writer) error {
	if len(c.Blobs) == 0 {
		_, err := w.Write(c.Inline)
		return err
	}
	var size int64
	for _, d := range c.Blobs {
		piece, err := s.GetBlob(ctx, d)
		if err != nil {
			return err
		}
		size += int64(len(piece))
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
	if size != c.Size {
		return fmt.Errorf("content has %d bytes, want %d", size, c.Size)
	}
	return nil
}
