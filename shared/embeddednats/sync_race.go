//go:build race

package embeddednats

import "time"

// syncInterval is longer than any test: the server sets the timer of a new stream
// without its lock, and when that fires before the stream was used the race
// detector fails whatever test runs (nats-server 2.15).
const syncInterval = time.Hour
