package workload

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
)

// MaxLineBytes is the longest line of a workload file, unpacked, in bytes.
const MaxLineBytes = 32 << 20

// Rows reads the rows of files, one file after the other, holding one line at
// a time. A file that starts as gzip does is unpacked, whatever its name. Blank
// lines are skipped. The first error, which names the file and the line, is the
// last value; a file without rows is an error too.
func Rows(paths ...string) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		for _, path := range paths {
			if !readFile(path, yield) {
				return
			}
		}
	}
}

// readFile reports whether to go on with the next file.
func readFile(path string, yield func(*Row, error) bool) bool {
	f, err := os.Open(path)
	if err != nil {
		yield(nil, fmt.Errorf("open workload: %w", err))
		return false
	}
	defer f.Close()
	return read(path, f, MaxLineBytes, yield)
}

func read(path string, r io.Reader, maxLine int, yield func(*Row, error) bool) bool {
	line := 0
	fail := func(err error) bool {
		yield(nil, fmt.Errorf("read workload %s:%d: %w", path, max(line, 1), err))
		return false
	}
	unpacked, err := unpack(r)
	if err != nil {
		return fail(err)
	}
	lines := bufio.NewScanner(unpacked)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	rows := 0
	for lines.Scan() {
		line++
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		row, err := parse(text)
		if err != nil {
			return fail(err)
		}
		if row.TaskID == "" {
			row.TaskID = fmt.Sprintf("%s:%d", filepath.Base(path), line)
		}
		rows++
		if !yield(row, nil) {
			return false
		}
	}
	err = lines.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		err = fmt.Errorf("the line is longer than %d bytes; split its cases over several rows", maxLine)
	}
	if err != nil {
		line++ // the line that couldn't be read
		return fail(err)
	}
	if rows == 0 {
		return fail(errNoRows)
	}
	return true
}

// unpack returns r, unpacked if it is gzip.
func unpack(r io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(r, 64<<10)
	if magic, err := buffered.Peek(2); err != nil || magic[0] != 0x1f || magic[1] != 0x8b {
		return buffered, nil // an error of Peek comes again when reading
	}
	z, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	return z, nil
}
