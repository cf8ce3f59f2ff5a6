package server

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// openTimeout bounds the question for the bucket of the workers: one that was
// asked while there was no leader is never answered.
const openTimeout = 2 * time.Second

// openWorkers returns the bucket of the workers. The other streams are looked
// after meanwhile: one that has no leader must not keep a gateway from knowing
// who is live.
func (s *Server) openWorkers(ctx context.Context, replicas int) (jetstream.KeyValue, error) {
	if !s.limited.Load() {
		return s.ensure(ctx, replicas) // the first time
	}
	ask, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	kv, err := s.deps.Bus.JS.KeyValue(ask, protocol.WorkersBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return s.ensure(ctx, replicas)
	}
	select {
	case s.reopened <- struct{}{}:
	default:
	}
	return kv, err
}

const (
	// mendTimeout bounds one attempt to make sure of the streams, and mendPause is
	// the time before the next.
	mendTimeout = 10 * time.Second
	mendPause   = time.Second
)

// mendStreams makes sure of streams and buckets after each time that the one of
// the workers was opened anew: NATS may have been started again without its data.
func (s *Server) mendStreams(ctx context.Context, replicas int) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.reopened:
		}
		for {
			try, cancel := context.WithTimeout(ctx, mendTimeout)
			_, err := s.ensure(try, replicas)
			cancel()
			if err == nil || ctx.Err() != nil {
				break
			}
			s.deps.Log.Warn("streams not looked after; trying again", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(mendPause):
			}
		}
	}
}

// ensure makes sure that stream and buckets are there, and returns the bucket of
// the workers. Later calls leave the queue limit as it is: another gateway may
// have set it since.
func (s *Server) ensure(ctx context.Context, replicas int) (jetstream.KeyValue, error) {
	settings := s.cfg.BusSettings(replicas)
	if s.limited.Load() {
		if _, err := s.deps.Bus.JS.Stream(ctx, protocol.JobsStream); err == nil {
			settings = bus.Settings{Replicas: replicas}
		}
	}
	b, err := bus.Ensure(ctx, s.deps.Bus.NC, settings)
	if err != nil {
		return nil, err
	}
	s.limited.Store(true)
	return b.Workers, nil
}
