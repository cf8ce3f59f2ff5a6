package load

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// ErrNotThere says that a session could not be read in time.
var ErrNotThere = errors.New("the session is not there")

// readEvery is the time between two attempts to read.
const readEvery = 10 * time.Millisecond

// Write writes one file, once.
func (g *Gateways) Write(ctx context.Context, gateway int, session, path, value string) error {
	a := g.send(ctx, gateway, request{path: "/write_file", body: map[string]any{"id": session, "rel_path": path, "content": content(value)}})
	if a.status != http.StatusOK {
		return fmt.Errorf("write %s of session %s: %d %s", path, session, a.status, a.detail())
	}
	return nil
}

// AwaitRead reads a file until it is there and returns how long that took. A
// refusal is no end, another content is; ErrNotThere after limit.
func (g *Gateways) AwaitRead(ctx context.Context, gateway int, session, path, value string, limit time.Duration) (time.Duration, error) {
	for begun := time.Now(); ; {
		a := g.send(ctx, gateway, readRequest(session, path))
		took := time.Since(begun)
		switch {
		case a.status == http.StatusOK:
			text, err := readContent(&a)
			if err == nil && held(text) != value {
				err = fmt.Errorf("%s of session %s is %q, %q was acknowledged", path, session, held(text), value)
			}
			return took, err
		case a.err == nil && a.status < http.StatusInternalServerError:
			return took, fmt.Errorf("read %s of session %s: %d %s", path, session, a.status, a.detail())
		case took > limit:
			return took, fmt.Errorf("%w: after %v: %d %s", ErrNotThere, limit, a.status, a.detail())
		}
		select {
		case <-ctx.Done():
			return took, ctx.Err()
		case <-time.After(readEvery):
		}
	}
}

// Sleep grades a submission that sleeps and returns a number, which must pass.
func (g *Gateways) Sleep(ctx context.Context, gateway int, d time.Duration, number int) error {
	s := submission{
		code:  fmt.Sprintf("import time\ndef f(x):\n    time.sleep(%.3f)\n    return x + 1\n", d.Seconds()),
		cases: []map[string]string{{"input": fmt.Sprint("x=", number), "output": fmt.Sprint(number + 1)}},
	}
	a := g.send(ctx, gateway, request{path: "/evaluate_code", body: s.body(protocol.NewUUID())})
	if a.status != http.StatusOK {
		return fmt.Errorf("evaluate: %d %s", a.status, a.detail())
	}
	graded, err := readGraded(a.body)
	if err == nil && graded.verdicts() != "passed" {
		err = fmt.Errorf("evaluate: verdict %q, want passed", graded.verdicts())
	}
	return err
}
