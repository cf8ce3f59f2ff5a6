package fleetclient

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	batchOp   = "evaluate_batch"
	batchPath = "/evaluate_batch"
	// closeTimeout is how long the end of an answer is waited for once every line
	// is answered.
	closeTimeout = 5 * time.Second
)

// ErrEnded is in the chain of the error for submissions that a server left
// unanswered when it ended a batch, as one does that stops. They may be sent again.
var ErrEnded = errors.New("the server ended the batch")

// errClosed ends the connection of a batch that is closed.
var errClosed = errors.New("the batch is closed")

// Batch evaluates submissions through POST /evaluate_batch: all are lines on one
// connection, each answered when its own answer comes. A connection that was lost
// is opened again by the next submission. As many are unanswered at a time as
// goroutines call Evaluate, and what waits to be sent waits in them.
//
// The client's timeout is how long no answer may come while some are awaited: how
// long one waits among many is the server's to say.
type Batch struct {
	client *Client
	ctx    context.Context
	wg     sync.WaitGroup // of connections' goroutines

	mu  sync.Mutex
	now *exchange // the latest; nil before the first
}

// NewBatch returns a batch that ends with ctx, or when it is closed. It contacts
// nobody before the first submission.
func (c *Client) NewBatch(ctx context.Context) *Batch { return &Batch{client: c, ctx: ctx} }

// PingBatch sends a batch of no lines: it asks whether the server takes batches.
func (c *Client) PingBatch(ctx context.Context) error {
	var last struct {
		Done *bool `json:"done"`
	}
	if err := c.do(ctx, batchOp, http.MethodPost, batchPath, []byte{}, &last); err != nil {
		return err
	}
	if last.Done == nil {
		return &AnswerError{Op: batchOp, Err: errors.New("a batch of no lines is answered without a last line")}
	}
	return nil
}

// Evaluate sends an evaluate request as one line and returns its answer. The body
// is the whole request's, without line breaks. Errors are those of
// [Client.Evaluate]; one of the connection is the error of all submissions on it
// that have no answer yet.
func (b *Batch) Evaluate(ctx context.Context, body []byte) (Evaluation, error) {
	if bytes.IndexByte(body, '\n') >= 0 {
		return Evaluation{}, fmt.Errorf("send line of %s: it has a line break inside", batchOp)
	}
	x, err := b.exchange()
	if err != nil {
		return Evaluation{}, err
	}
	l := &batchLine{body: body, answered: make(chan lineAnswer, 1)}
	select {
	case x.lines <- l:
	case <-x.gone:
		return Evaluation{}, x.err
	case <-ctx.Done():
		return Evaluation{}, fmt.Errorf("evaluate at %s: %w", b.client.base, context.Cause(ctx))
	}
	select {
	case a := <-l.answered:
		return a.Evaluation, a.err
	case <-ctx.Done():
		return Evaluation{}, fmt.Errorf("evaluate at %s: %w", b.client.base, context.Cause(ctx))
	case <-x.gone:
	}
	select {
	case a := <-l.answered: // the last that came
		return a.Evaluation, a.err
	default:
		return Evaluation{}, x.err
	}
}

// Close ends the batch: as documented if all is answered, else at once. Evaluate
// must not be called any more.
func (b *Batch) Close() {
	b.mu.Lock()
	x := b.now
	b.mu.Unlock()
	if x != nil {
		limit := closeTimeout
		x.mu.Lock()
		if len(x.open) > 0 {
			limit = 0
		}
		x.mu.Unlock()
		defer time.AfterFunc(limit, func() { x.cancel(errClosed) }).Stop()
		close(x.finish)
	}
	b.wg.Wait()
}

// exchange returns the connection, a new one if there is none or the last is gone.
func (b *Batch) exchange() (*exchange, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now != nil {
		select {
		case <-b.now.gone:
		default:
			return b.now, nil
		}
	}
	ctx, cancel := context.WithCancelCause(b.ctx)
	in, out := io.Pipe()
	req, err := b.client.request(ctx, batchOp, http.MethodPost, batchPath, "application/x-ndjson", in)
	if err != nil {
		cancel(err)
		return nil, err
	}
	x := &exchange{
		client: b.client, cancel: cancel, lines: make(chan *batchLine), finish: make(chan struct{}),
		gone: make(chan struct{}), open: map[int]*batchLine{},
	}
	b.now = x
	b.wg.Go(func() { x.send(out) })
	b.wg.Go(func() {
		err := x.receive(req, func(err error) { in.CloseWithError(err) })
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("%s at %s: %w", batchOp, b.client.base, cause)
		}
		x.end(err)
		in.CloseWithError(err) // what is being written has nobody to read it
	})
	return x, nil
}

// watchedConn calls lost when nothing can be read from it any more.
type watchedConn struct {
	net.Conn
	lost func(error)
}

// Read implements [net.Conn].
func (c watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.lost(err)
	}
	return n, err
}

// exchange is one connection's request and answer, under way at the same time.
type exchange struct {
	client *Client
	cancel context.CancelCauseFunc
	lines  chan *batchLine // to be sent; taken only while there is room to send
	finish chan struct{}   // closed when no more will be
	gone   chan struct{}   // closed when no more answers come
	err    error           // why; set before gone is closed

	mu   sync.Mutex
	sent int                // lines
	open map[int]*batchLine // the unanswered ones, by number
	// stall ends the exchange when no answer comes; it runs while some are open.
	stall *time.Timer
}

// batchLine is a submission on its way.
type batchLine struct {
	body     []byte
	answered chan lineAnswer // gets one value, if an answer comes
}

type lineAnswer struct {
	Evaluation
	err error
}

// send writes lines as they come, until finish or the end of the answer.
func (x *exchange) send(out *io.PipeWriter) {
	defer out.Close()
	var buffer []byte
	for {
		select {
		case l := <-x.lines:
			x.mu.Lock()
			x.open[x.sent] = l
			x.sent++
			if len(x.open) == 1 {
				x.watch()
			}
			x.mu.Unlock()
			buffer = append(append(buffer[:0], l.body...), '\n')
			if _, err := out.Write(buffer); err != nil {
				return // who receives knows more
			}
		case <-x.finish:
			return
		case <-x.gone:
			return
		}
	}
}

// watch starts the time without an answer anew. It is called with x.mu locked.
func (x *exchange) watch() {
	switch limit := x.client.timeout; {
	case limit <= 0:
	case x.stall == nil:
		x.stall = time.AfterFunc(limit, func() {
			x.cancel(fmt.Errorf("no answer in %v: %w", limit, context.DeadlineExceeded))
		})
	default:
		x.stall.Reset(limit)
	}
}

// end says that no more answers come.
func (x *exchange) end(err error) {
	x.mu.Lock()
	if x.stall != nil {
		x.stall.Stop()
	}
	x.mu.Unlock()
	x.err = err
	close(x.gone)
	x.cancel(err)
}

// receive sends the request and takes answers until there are no more. It always
// returns an error: why there are no more. It calls lost when the connection is.
//
// When a connection is lost before the answer's headers, net/http waits until the
// body can't be written, and that is when there is a next line, which waits for an
// answer. So the connection is one of its own, and it is watched.
func (x *exchange) receive(req *http.Request, lost func(error)) error {
	transport := x.client.http.Transport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return watchedConn{conn, lost}, nil
	}
	own := *x.client.http
	own.Transport = transport
	resp, err := own.Do(req)
	if err != nil {
		return fmt.Errorf("%s at %s: %w", batchOp, x.client.base, bare(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusalBytes))
		if err != nil {
			return fmt.Errorf("read %s answer of %s: %w", batchOp, x.client.base, err)
		}
		return newStatusError(batchOp, resp, text)
	}
	in := bufio.NewReaderSize(resp.Body, 32<<10)
	var text []byte
	for {
		text, err = readLine(in, text[:0])
		switch {
		case errors.Is(err, errLongLine):
			return &AnswerError{Op: batchOp, Err: err}
		case err != nil:
			if errors.Is(err, io.EOF) { // also one in the middle of a line
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("%s at %s: the connection was cut: %w", batchOp, x.client.base, err)
		case len(text) == 0:
			continue
		}
		if err := x.take(text); err != nil {
			return err
		}
	}
}

// maxRefusalBytes is how much is read of an answer that refuses a batch, bytes.
const maxRefusalBytes = 64 << 10

// answerLine is a line of an answer: of one submission, or the last.
type answerLine struct {
	Index  *int           `json:"index"`
	Status int            `json:"status"`
	Detail string         `json:"detail"`
	Result jsontext.Value `json:"result"`
	Done   *bool          `json:"done"`
}

// take gives a line of the answer to whoever waits for it. An error ends the
// exchange.
func (x *exchange) take(text []byte) error {
	var a answerLine
	if err := Decode(batchOp, text, &a); err != nil {
		return err
	}
	if a.Done != nil {
		if !*a.Done {
			return fmt.Errorf("%s at %s: %w: %s", batchOp, x.client.base, ErrEnded, shortDetail(a.Detail))
		}
		return fmt.Errorf("%s at %s: %w", batchOp, x.client.base, ErrEnded)
	}
	l, err := x.answered(a.Index)
	switch {
	case err != nil:
		return &AnswerError{Op: batchOp, Err: fmt.Errorf("%w: %s", err, shortDetail(string(text)))}
	case l == nil:
		return nil
	case a.Status != http.StatusOK:
		l.answered <- lineAnswer{err: &StatusError{Op: "evaluate", Code: a.Status, Detail: shortDetail(a.Detail)}}
		return nil
	}
	var answer lineAnswer
	answer.err = Decode("evaluate", a.Result, &answer.Evaluation)
	l.answered <- answer
	return nil
}

// answered takes out the line of a number; nil if it was answered before, since
// the first answer counts.
func (x *exchange) answered(number *int) (*batchLine, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if number == nil || *number < 0 || *number >= x.sent {
		return nil, fmt.Errorf("a line answers none of the %d that were sent", x.sent)
	}
	l := x.open[*number]
	delete(x.open, *number)
	if len(x.open) > 0 {
		x.watch()
	} else if x.stall != nil {
		x.stall.Stop()
	}
	return l, nil
}

var errLongLine = fmt.Errorf("a line is longer than %d bytes", MaxAnswerBytes)

// readLine appends a line without its end to buffer. What has no line break at
// its end is no line: it was cut.
func readLine(in *bufio.Reader, buffer []byte) ([]byte, error) {
	for {
		part, err := in.ReadSlice('\n')
		if len(buffer)+len(part) > MaxAnswerBytes {
			return nil, errLongLine
		}
		buffer = append(buffer, part...)
		if err == nil {
			return bytes.TrimSpace(buffer), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}
