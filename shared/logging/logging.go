// Package logging makes the one logger of a process.
package logging

import (
	"fmt"
	"io"
	"log/slog"
)

// Config of the log. The tags are the one definition of flags and environment
// variables.
type Config struct {
	Level  string `name:"log-level" env:"GRADEFLEET_LOG_LEVEL" default:"info" enum:"debug,info,warn,error" help:"Least severe messages to log: debug, info, warn or error."`
	Format string `name:"log-format" env:"GRADEFLEET_LOG_FORMAT" default:"text" enum:"text,json" help:"Form of the log: text or json."`
}

// New returns a logger that writes to w.
func New(c Config, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, fmt.Errorf("log level %q: want debug, info, warn or error", c.Level)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch c.Format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	case "text", "":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("log format %q: want text or json", c.Format)
}
