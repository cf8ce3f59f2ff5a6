//go:build !race

package embeddednats

import "time"

// syncInterval is how often JetStream flushes its files to the disk: a power
// failure costs what came since.
const syncInterval = time.Second
