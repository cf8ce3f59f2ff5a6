package workcopy

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// What storing costs a write, beside a worker that doesn't store.
func BenchmarkWriteFile(b *testing.B) {
	for _, stores := range []bool{false, true} {
		for _, size := range []int{1 << 10, 100 << 10} {
			b.Run(fmt.Sprintf("durable=%v/%d", stores, size), func(b *testing.B) {
				r := newRig(b)
				w := r.start("w", r.dir(), stores)
				w.Beat()()
				var sessions, writes atomic.Int64
				b.SetParallelism(2) // 4 clients on 2 cores
				b.RunParallel(func(pb *testing.PB) {
					id := fmt.Sprint("s", sessions.Add(1))
					r.own(id, "w", 1, stores)
					data := bytes.Repeat([]byte("x"), size)
					for pb.Next() {
						n := writes.Add(1)
						copy(data, fmt.Sprintf("%020d", n))
						w.Beat()()
						h, err := w.Acquire(b.Context(), id, 1, true)
						if err == nil {
							h.Operation = protocol.NewOperationID()
							err = h.WriteFile(b.Context(), fmt.Sprintf("bench/%02d.txt", n%16), data)
						}
						if err != nil {
							b.Error(err)
							return
						}
						h.Release()
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
			})
		}
	}
}

// What a job costs that changes nothing, in a session of many files.
func BenchmarkSaveUnchanged(b *testing.B) {
	for _, files := range []int{10, 1000} {
		b.Run(fmt.Sprint(files), func(b *testing.B) {
			r := newRig(b)
			w := r.worker("w")
			r.own("s", "w", 1, true)
			for i := range files {
				w.write("s", 1, fmt.Sprintf("d%d/f%d", i%10, i), "content")
			}
			h := w.use("s", 1)
			defer h.Release()
			for b.Loop() {
				if err := h.Save(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
