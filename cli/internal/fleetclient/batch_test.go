package fleetclient_test

import (
	"bufio"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/fleetclient"
	"github.com/gradefleet/gradefleet/cli/internal/fleetclient/apitest"
)

func TestBatch(t *testing.T) {
	server := apitest.New(t, nil)
	c := newClient(t, server.URL)
	if err := c.PingBatch(t.Context()); err != nil {
		t.Error(err)
	}
	b := c.NewBatch(t.Context())
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			e, err := b.Evaluate(t.Context(), []byte(twoAdditions))
			if err != nil || len(e.Cases) != 2 || !*e.Verdicts()[0] || *e.Verdicts()[1] {
				t.Errorf("got %+v, %v", e, err)
			}
		})
	}
	wg.Wait()
	if _, err := b.Evaluate(t.Context(), []byte("{\n}")); err == nil || !strings.Contains(err.Error(), "line break") {
		t.Errorf("a body of two lines: %v", err)
	}
	b.Close()
	if n := server.Batches.Load(); n != 2 {
		t.Errorf("%d batches came to their end, want 2", n)
	}
}

// batchServer answers every batch by a function that reads and writes lines.
func batchServer(t *testing.T, serve func(in *bufio.Scanner, write func(string))) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		apitest.Duplex(t, w)
		control := http.NewResponseController(w)
		serve(bufio.NewScanner(r.Body), func(text string) {
			io.WriteString(w, text)
			control.Flush()
		})
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// Batches go over TLS as other requests do, to servers that the machine trusts.
func TestBatchTLS(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		apitest.Duplex(t, w)
		for in, i := bufio.NewScanner(r.Body), 0; in.Scan(); i++ {
			fmt.Fprintf(w, passed, i)
			http.NewResponseController(w).Flush()
		}
		io.WriteString(w, `{"done":true}`+"\n")
	})
	server := httptest.NewTLSServer(handler)
	defer server.Close()
	certificate := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", certificate) // read at the first use of TLS, which is here
	c := newClient(t, server.URL)
	if err := c.PingBatch(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := c.NewBatch(t.Context())
	defer b.Close()
	for range 3 {
		if e, err := b.Evaluate(t.Context(), []byte(twoAdditions)); err != nil || e.Passed == nil || !*e.Passed {
			t.Errorf("got %+v, %v", e, err)
		}
	}
}

const passed = `{"index":%d,"status":200,"result":{"passed":true,"case_results":[],"error":null}}` + "\n"

func TestBatchFaults(t *testing.T) {
	answer := func(text string) func(*bufio.Scanner, func(string)) {
		return func(in *bufio.Scanner, write func(string)) {
			in.Scan()
			write(text)
		}
	}
	for name, test := range map[string]struct {
		serve     func(in *bufio.Scanner, write func(string))
		reason    string
		transient bool
		is        error
		says      string
	}{
		"refused line":       {answer(`{"index":0,"status":422,"detail":"cases: none"}` + "\n"), "422", false, nil, "evaluate: status 422: cases: none"},
		"line not ready":     {answer(`{"index":0,"status":503,"detail":"no worker"}` + "\n"), "503", true, nil, "evaluate: status 503: no worker"},
		"status alone":       {answer(`{"index":0,"status":500,"result":{}}` + "\n"), "500", false, nil, "evaluate: status 500"},
		"no result":          {answer(`{"index":0,"status":200}` + "\n"), "bad answer", false, nil, "decode evaluate answer"},
		"no line of ours":    {answer(`{"index":1,"status":200,"result":{}}` + "\n"), "bad answer", false, nil, "none of the 1 that were sent"},
		"no number":          {answer(`{"status":200,"result":{}}` + "\n"), "bad answer", false, nil, "none of the 1 that were sent"},
		"no JSON":            {answer("<html>\n"), "bad answer", false, nil, "decode evaluate_batch answer"},
		"cut":                {answer(""), "closed", true, io.ErrUnexpectedEOF, "the connection was cut"},
		"cut within a line":  {answer(`{"index":0,"status":200,"result":{"pas`), "closed", true, io.ErrUnexpectedEOF, "the connection was cut"},
		"ended early":        {answer(`{"done":false,"count":0,"detail":"stopping"}` + "\n"), "transport", true, fleetclient.ErrEnded, "stopping"},
		"ended without ours": {answer(`{"done":true,"count":1}` + "\n"), "transport", true, fleetclient.ErrEnded, "the server ended the batch"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newClient(t, batchServer(t, test.serve)).NewBatch(t.Context())
			defer b.Close()
			_, err := b.Evaluate(t.Context(), []byte(twoAdditions))
			if err == nil || !strings.Contains(err.Error(), test.says) || test.is != nil && !errors.Is(err, test.is) {
				t.Fatalf("error %v, want one that says %q", err, test.says)
			}
			if got := fleetclient.Reason(err); got != test.reason {
				t.Errorf("reason %q, want %q", got, test.reason)
			}
			if got := fleetclient.Transient(err); got != test.transient {
				t.Errorf("transient %v: %v", got, err)
			}
		})
	}
}

// A batch that is refused as a whole refuses its lines, with the server's wish.
func TestBatchRefused(t *testing.T) {
	c := newClient(t, apitest.New(t, func(w http.ResponseWriter, _ apitest.Request) bool {
		w.Header().Set("Retry-After", "7")
		apitest.Answer(w, 429, map[string]string{"detail": "too many"})
		return true
	}).URL)
	b := c.NewBatch(t.Context())
	defer b.Close()
	_, err := b.Evaluate(t.Context(), []byte(twoAdditions))
	if !fleetclient.Busy(err) || fleetclient.RetryAfter(err) != 7*time.Second || !strings.Contains(err.Error(), "evaluate_batch: status 429: too many") {
		t.Errorf("error %v, wait %v", err, fleetclient.RetryAfter(err))
	}
	if err := c.PingBatch(t.Context()); !fleetclient.Busy(err) {
		t.Errorf("error %v of a batch of no lines", err)
	}
}

// The answers that come count, whatever comes after them: a second answer to the
// same line is none, and after a connection that ended there is another.
func TestBatchGoesOn(t *testing.T) {
	b := newClient(t, batchServer(t, func(in *bufio.Scanner, write func(string)) {
		for i := 0; i < 2 && in.Scan(); i++ {
			write(fmt.Sprintf(passed, i) + "\n" + fmt.Sprintf(passed, 0))
		}
		if in.Scan() {
			write(`{"done":false,"count":2,"detail":"stopping"}` + "\n")
		}
	})).NewBatch(t.Context())
	defer b.Close()
	for i := range 9 {
		_, err := b.Evaluate(t.Context(), []byte(twoAdditions))
		if third := i%3 == 2; third != errors.Is(err, fleetclient.ErrEnded) || !third && err != nil {
			t.Errorf("submission %d: %v", i, err)
		}
	}
}

// A server that says nothing, not even that it has the request, or nothing more
// after some answers: the submission is given up.
func TestBatchTimeout(t *testing.T) {
	for name, answers := range map[string]int{"silent": -1, "headers only": 0, "stops answering": 1} {
		t.Run(name, func(t *testing.T) {
			url := batchServer(t, func(in *bufio.Scanner, write func(string)) {
				if answers >= 0 {
					write("\n")
				}
				for i := 0; in.Scan(); i++ {
					if i < answers {
						write(fmt.Sprintf(passed, i))
					}
				}
			})
			// On a busy machine a good answer may be late: then more time is given.
			for timeout := 500 * time.Millisecond; ; timeout *= 2 {
				c, err := fleetclient.New(fleetclient.Config{URL: url, Timeout: timeout})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				b := c.NewBatch(t.Context())
				defer b.Close()
				for range answers {
					if _, err = b.Evaluate(t.Context(), []byte(twoAdditions)); err != nil {
						break
					}
				}
				if err != nil {
					if timeout > time.Minute {
						t.Fatal(err)
					}
					continue
				}
				_, err = b.Evaluate(t.Context(), []byte(twoAdditions))
				if !errors.Is(err, context.DeadlineExceeded) || fleetclient.Transient(err) || !strings.Contains(err.Error(), fmt.Sprintf("no answer in %v", timeout)) {
					t.Errorf("error %v", err)
				}
				return
			}
		})
	}
}

// Who gives up, alone or with all, isn't held by a server that says nothing.
func TestBatchCancelled(t *testing.T) {
	came := make(chan struct{}, 2)
	c := newClient(t, batchServer(t, func(in *bufio.Scanner, write func(string)) {
		for in.Scan() {
			came <- struct{}{}
		}
	}))
	all, cancelAll := context.WithCancel(t.Context())
	defer cancelAll()
	b := c.NewBatch(all)
	one, cancelOne := context.WithCancel(t.Context())
	go func() {
		<-came
		cancelOne()
		<-came
		cancelAll()
	}()
	if _, err := b.Evaluate(one, []byte(twoAdditions)); !errors.Is(err, context.Canceled) {
		t.Errorf("one: %v", err)
	}
	if _, err := b.Evaluate(t.Context(), []byte(twoAdditions)); !errors.Is(err, context.Canceled) {
		t.Errorf("all: %v", err)
	}
	b.Close()
}

// A submission that nobody takes at the other end waits in its caller: what is
// unsent isn't held elsewhere. Closing ends it all the same.
func TestBatchUnread(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	b := newClient(t, "http://"+listener.Addr().String()).NewBatch(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		conn.Read(make([]byte, 1)) // the request has begun
		cancel()
		io.Copy(io.Discard, conn) // until it is closed
	}()
	huge := []byte(`{"code":"` + strings.Repeat("x", 64<<20) + `"}`) // more than a connection holds
	if _, err := b.Evaluate(ctx, huge); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	b.Close()
}
