package pyrunner

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// appendFrame writes a frame as runner.py does.
func appendFrame(b []byte, kind FrameKind, number int, stdout, stderr, body []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(frameHead-4+len(stdout)+len(stderr)+len(body)))
	b = append(b, byte(kind))
	for _, v := range []int{number, 12, 34, 9000, len(stdout), len(stderr)} {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	return append(append(append(b, stdout...), stderr...), body...)
}

// BenchmarkNextFrame cuts the frames of a submission off what was read at once.
func BenchmarkNextFrame(b *testing.B) {
	for _, c := range []struct {
		name   string
		frames int
		body   int
	}{{"100 small", 100, 6}, {"one of 1 MiB", 1, 1 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			var stream []byte
			for i := range c.frames {
				stream = appendFrame(stream, FrameValue, i, []byte("printed\n"), nil, make([]byte, c.body))
			}
			b.ReportAllocs()
			b.SetBytes(int64(len(stream)))
			for b.Loop() {
				rest, n := stream, 0
				for len(rest) > 0 {
					f, after, ok, err := nextFrame(rest, 2<<20)
					if err != nil || !ok || f.Case != n || len(f.Body) != c.body {
						b.Fatal(fmt.Sprint("frame ", n, ": ", f.Case, " ", ok, " ", err))
					}
					rest, n = after, n+1
				}
			}
		})
	}
}
