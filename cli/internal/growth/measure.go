package growth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/proctable"
)

// The parts of a fleet, and the load, which is this process.
const gateway, nats, workers, load = "gateway", "nats", "workers", "load"

// size is what was measured of a fleet of one size.
type size struct {
	Workers int `json:"workers"`
	Slots   int `json:"slots"`
	// Seconds is how long the measurement took, Join the time from the start of
	// the workers' process to the last worker's being seen by the gateway.
	Seconds  float64   `json:"seconds"`
	Join     float64   `json:"join_s"`
	Idle     idle      `json:"idle"`
	Sessions placement `json:"sessions"`
	// MeanMS is the mean length of the jobs, in milliseconds.
	MeanMS float64 `json:"mean_length_ms"`
	// Steady is a part of the jobs, coming at random; Busy the rest, coming so
	// that all slots are busy, from two callers.
	Steady       summary `json:"steady"`
	Busy         summary `json:"busy"`
	FirstCaller  wait    `json:"first_caller"`
	SecondCaller wait    `json:"second_caller"`
	// Resident is what each part has in memory at the end, in MB of 2^20 bytes.
	Resident map[string]float64 `json:"resident_mb"`
}

// idle is a fleet without work.
type idle struct {
	// CPU of each part, in milliseconds a second.
	CPU map[string]float64 `json:"cpu_ms_per_s"`
	// In and Out are the messages that NATS takes and sends, a second.
	In            float64 `json:"nats_in_per_s"`
	Out           float64 `json:"nats_out_per_s"`
	Connections   int     `json:"connections"`
	Subscriptions int     `json:"subscriptions"`
	Consumers     int     `json:"consumers"`
}

// placement is of sessions made by a first write.
type placement struct {
	PerSecond float64 `json:"per_s"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	GatewayUS float64 `json:"gateway_cpu_us"` // each
	Each      spread  `json:"each_worker"`
}

// wait is time that answers took without the job itself, or a part of it.
type wait struct {
	Jobs int     `json:"jobs"`
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	Max  float64 `json:"max_ms"`
}

func waitOf(d []time.Duration) wait {
	return wait{Jobs: len(d), P50: quantileMS(d, 0.5), P99: quantileMS(d, 0.99), Max: quantileMS(d, 1)}
}

// summary is of many jobs.
type summary struct {
	// Wait is what answers took beside their jobs, Queue the part of it from the
	// gateway's publication to the start on a slot.
	Wait      wait    `json:"wait"`
	Queue     wait    `json:"queue"`
	PerSecond float64 `json:"jobs_per_s"`
	// SlotsBusy is the part of the slots' time that jobs took.
	SlotsBusy float64 `json:"slots_busy"`
	Each      spread  `json:"each_worker"` // jobs
	// CPU of each part for a job, in microseconds.
	CPU    map[string]float64 `json:"cpu_us_per_job"`
	Failed int                `json:"failed"`
	// Failure is one of the errors of those.
	Failure string `json:"failure,omitempty"`
}

// spread is of a number that each worker has.
type spread struct {
	Min  float64 `json:"min"`
	Mean float64 `json:"mean"`
	Max  float64 `json:"max"`
	// Deviation is the standard deviation, as a part of the mean.
	Deviation float64 `json:"deviation"`
}

func spreadOf(each []float64) spread {
	if len(each) == 0 {
		return spread{}
	}
	s := spread{Min: slices.Min(each), Max: slices.Max(each)}
	for _, v := range each {
		s.Mean += v / float64(len(each))
	}
	var square float64
	for _, v := range each {
		square += (v - s.Mean) * (v - s.Mean) / float64(len(each))
	}
	if s.Mean > 0 {
		s.Deviation = math.Sqrt(square) / s.Mean
	}
	return s
}

// spent is the CPU time of each part up to now.
func (f *fleet) spent() (map[string]time.Duration, error) {
	table, err := proctable.Read()
	if err != nil {
		return nil, err
	}
	s := map[string]time.Duration{load: table[os.Getpid()].CPU}
	for part, pids := range f.pids {
		for _, pid := range pids {
			if _, there := table[pid]; !there {
				return nil, fmt.Errorf("a process of %s (pid %d) is gone", part, pid)
			}
		}
		s[part] = table.CPU(pids...)
	}
	return s, nil
}

func perJob(d time.Duration, jobs int) float64 {
	return float64(d) / float64(time.Microsecond) / float64(max(jobs, 1))
}

// summary sums up what came back.
func (f *fleet) summary(ctx context.Context, got *seen, w *window) (summary, error) {
	if ctx.Err() != nil {
		return summary{}, ctx.Err()
	}
	jobs, took := got.ended(w)
	if len(got.waits) == 0 {
		return summary{}, fmt.Errorf("no job was answered; one of the errors: %w", got.failure)
	}
	each := make([]float64, 0, f.workers)
	for _, n := range got.jobs {
		each = append(each, float64(n))
	}
	for len(each) < f.workers {
		each = append(each, 0) // those that had none
	}
	wall := w.to.Sub(w.from).Seconds()
	s := summary{
		Wait: waitOf(got.waits), Queue: waitOf(got.queued),
		PerSecond: float64(jobs) / wall, SlotsBusy: took.Seconds() / wall / float64(f.slots),
		Each: spreadOf(each), CPU: map[string]float64{}, Failed: got.failed,
	}
	if got.failure != nil {
		s.Failure = got.failure.Error()
	}
	for part := range w.after {
		s.CPU[part] = perJob(w.after[part]-w.before[part], jobs)
	}
	return s, nil
}

// varz and jsz are of NATS' monitoring, as far as they are of use here.
type varz struct {
	In            int64 `json:"in_msgs"`
	Out           int64 `json:"out_msgs"`
	Connections   int   `json:"connections"`
	Subscriptions int   `json:"subscriptions"`
}

type jsz struct {
	Consumers int `json:"consumers"`
}

// monitor reads what the NATS servers say of themselves, and adds it up.
func (f *fleet) monitor(ctx context.Context) (v varz, j jsz, err error) {
	for _, url := range f.NATSMonitors {
		var oneV varz
		var oneJ jsz
		if err := errors.Join(page(ctx, url+"/varz", &oneV), page(ctx, url+"/jsz", &oneJ)); err != nil {
			return v, j, fmt.Errorf("ask NATS' monitoring: %w", err)
		}
		v.In, v.Out = v.In+oneV.In, v.Out+oneV.Out
		v.Connections, v.Subscriptions = v.Connections+oneV.Connections, v.Subscriptions+oneV.Subscriptions
		j.Consumers += oneJ.Consumers
	}
	return v, j, nil
}

func page(ctx context.Context, url string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Close = true // no connection is left behind
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(answer)
}

// idle looks at a fleet that has nothing to do.
func (s *size) idle(ctx context.Context, f *fleet, d time.Duration) error {
	before, err := f.spent()
	if err != nil {
		return err
	}
	first, _, err := f.monitor(ctx)
	if err != nil {
		return err
	}
	begun := time.Now()
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return ctx.Err()
	}
	last, streams, err := f.monitor(ctx)
	if err != nil {
		return err
	}
	after, err := f.spent()
	if err != nil {
		return err
	}
	wall := time.Since(begun).Seconds()
	s.Idle = idle{
		CPU: map[string]float64{}, In: float64(last.In-first.In) / wall, Out: float64(last.Out-first.Out) / wall,
		Connections: last.Connections, Subscriptions: last.Subscriptions, Consumers: streams.Consumers,
	}
	for part := range f.pids {
		s.Idle.CPU[part] = (after[part] - before[part]).Seconds() * 1000 / wall
	}
	return nil
}

// memory reads what the parts have in memory.
func (s *size) memory(f *fleet) error {
	s.Resident = map[string]float64{}
	for part, pids := range f.pids {
		for _, pid := range pids {
			m, err := proctable.ReadMemory(pid)
			if err != nil {
				return err
			}
			s.Resident[part] += float64(m.RSS) / (1 << 20)
		}
	}
	return nil
}
