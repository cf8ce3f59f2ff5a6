package lifecycle

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestStopsInOrder(t *testing.T) {
	var order []string
	part := func(name string) Part {
		return Part{name, func(ctx context.Context) error {
			<-ctx.Done()
			order = append(order, name)
			return nil
		}}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Run(ctx, part("bus"), part("worker"), part("gateway")); err != nil {
		t.Fatal(err)
	}
	if want := []string{"gateway", "worker", "bus"}; !slices.Equal(order, want) {
		t.Errorf("stopped in order %v, want %v", order, want)
	}
}

func TestOneEndEndsAll(t *testing.T) {
	boom := errors.New("boom")
	waits := Part{"waits", func(ctx context.Context) error { <-ctx.Done(); return nil }}
	fails := Part{"fails", func(context.Context) error { return boom }}
	if err := Run(context.Background(), waits, fails); !errors.Is(err, boom) || !strings.Contains(err.Error(), "fails: ") {
		t.Errorf("error %v", err)
	}
	quits := Part{"quits", func(context.Context) error { return nil }}
	if err := Run(context.Background(), waits, quits); err == nil || !strings.Contains(err.Error(), "quits ended by itself") {
		t.Errorf("error %v", err)
	}
}
