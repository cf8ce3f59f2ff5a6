package server

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/shared/secret"
)

func parse(t *testing.T, args ...string) Config {
	t.Helper()
	var c Config
	p, err := kong.New(&c, kong.Exit(func(int) { t.Fatal("kong wants to exit") }))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse(args); err != nil {
		t.Fatal(err)
	}
	return c
}

// The defaults of the flags and those of the code are the same.
func TestDefaultsAgree(t *testing.T) {
	byFlags, byCode := parse(t), Config{}.WithDefaults()
	byFlags.ID, byCode.ID = "", "" // random
	if !reflect.DeepEqual(byFlags, byCode) {
		t.Errorf("by flags %+v, by code %+v", byFlags, byCode)
	}
	if err := byFlags.Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
}

func TestFlagsAndEnvironment(t *testing.T) {
	t.Setenv("LISTEN", "127.0.0.1:1,[::1]:2")
	t.Setenv("GRADEFLEET_JOB_DEADLINE", "1m")
	t.Setenv("GRADEFLEET_MAX_BODY", "1000")
	c := parse(t, "--gateway-id=gw", "--queue-limit=5", "--file-deadline=2s", "--max-body=2000")
	want := Config{ID: "gw", Listen: []string{"127.0.0.1:1", "[::1]:2"}, JobDeadline: time.Minute, FileDeadline: 2 * time.Second, QueueLimit: 5, MaxBody: 2000}.WithDefaults()
	if !reflect.DeepEqual(c, want) {
		t.Errorf("parsed %+v, want %+v", c, want)
	}
}

// Everything that can be set has a flag, a variable and a help text.
func TestEveryFieldIsDocumented(t *testing.T) {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		env := f.Tag.Get("env")
		if f.Tag.Get("name") == "" || f.Tag.Get("help") == "" || env != "LISTEN" && !strings.HasPrefix(env, "GRADEFLEET_") {
			t.Errorf("field %s: tag %q", f.Name, f.Tag)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		want string // "" for none
	}{
		{"zero", Config{}, ""},
		{"address without a port", Config{Listen: []string{"127.0.0.1"}}, `listen: "127.0.0.1"`},
		{"one of two addresses", Config{Listen: []string{"127.0.0.1:0", "x"}}, `listen: "x"`},
		{"id with a dot", Config{ID: "a.b"}, "gateway-id"},
		{"id too long", Config{ID: strings.Repeat("a", 65)}, "gateway-id"},
		{"negative deadline", Config{JobDeadline: -1}, "job-deadline"},
		{"deadline beyond the queue", Config{JobDeadline: protocol.JobMaxAge + 1}, "30m"},
		{"negative limit", Config{QueueLimit: -1}, "queue-limit"},
		{"backlog for less than one", Config{QueueLimit: 10, BacklogLimit: 9}, "backlog-limit is 9"},
		{"backlog for one", Config{QueueLimit: 10, BacklogLimit: 10}, ""},
		{"backlog for no job", Config{MaxBody: 2 << 20, BacklogBytes: 2 << 20}, "backlog-bytes is 2097152: one job may need"},
		{"negative bytes", Config{BacklogBytes: -1}, "backlog-bytes"},
		{"body beyond NATS", Config{MaxBody: protocol.MaxMessageBytes}, "max-body"},
		{"negative drain", Config{DrainTimeout: -time.Second}, "drain-timeout is -1s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.cfg.Validate()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("Validate: %v, want %q", err, c.want)
			}
		})
	}
	err := Config{ID: "a b", QueueLimit: -1, Listen: []string{"x"}}.Validate()
	for _, part := range []string{"listen", "gateway-id", "queue-limit"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("Validate of three faults: %v, want %s in it", err, part)
		}
	}
}

func TestRandomIDs(t *testing.T) {
	a, b := randomID(), randomID()
	if a == b {
		t.Errorf("two gateways of one id: %s", a)
	}
	if err := (Config{ID: a}).Validate(); err != nil {
		t.Error(err)
	}
}

// An empty key would be one that nobody can send. No keys, as compose files say it, are none.
func TestEmptyAPIKeys(t *testing.T) {
	t.Setenv("GRADEFLEET_API_KEYS", "")
	if c := parse(t); len(c.APIKeys) > 0 {
		t.Errorf("an empty variable is %d keys", len(c.APIKeys))
	}
	for want, keys := range map[string][]secret.String{"": {"a", "b"}, "key 1 of 1": {""}, "key 2 of 3": {"a", " ", "b"}} {
		switch err := (Config{APIKeys: keys}).Validate(); {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), "api-keys: "+want)):
			t.Errorf("%d keys: %v, want %q", len(keys), err, want)
		}
	}
}
