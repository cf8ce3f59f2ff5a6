package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"

	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/gateway/internal/routing"
	"github.com/gradefleet/gradefleet/gateway/internal/shape"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// post reads a JSON body of the given form and hands it on as it is.
func (a *api) post(form *shape.Form, do func(context.Context, routing.Request) (protocol.Result, error)) gin.HandlerFunc {
	return a.handle(func(c *gin.Context) (protocol.Result, error) {
		body, err := a.readBody(c)
		if err != nil {
			return protocol.Result{}, err
		}
		defer body.release()
		session, err := form.Check(body.bytes)
		var wrong *shape.Error
		if errors.As(err, &wrong) {
			return protocol.Result{}, fault.Unprocessable(wrong.Detail)
		}
		if err != nil {
			return protocol.Result{}, err
		}
		if err := protocol.CheckSessionID(session); err != nil {
			return protocol.Result{}, fault.BadRequest(err.Error())
		}
		c.Set(sessionKey, session)
		return do(c.Request.Context(), routing.Request{ID: requestID(c), Session: session, Body: body.bytes})
	})
}

// missingQuery is how the documented API says that a query parameter is
// missing: a list, where all other details are text. Its clients know it so.
type missingQuery struct {
	Loc  [2]string `json:"loc"`
	Msg  string    `json:"msg"`
	Type string    `json:"type"`
}

// readQuery is the query of a read as the JSON that the worker gets.
type readQuery struct {
	ID       string `json:"id"`
	RelPath  string `json:"rel_path"`
	Encoding string `json:"encoding,omitempty"`
}

// readFile is GET /read_file.
func (a *api) readFile(c *gin.Context) (protocol.Result, error) {
	a.awaitNoBody(c)
	query := c.Request.URL.Query()
	var q readQuery
	var missing []missingQuery
	for _, p := range []struct {
		name     string
		to       *string
		required bool
	}{{"id", &q.ID, true}, {"rel_path", &q.RelPath, true}, {"encoding", &q.Encoding, false}} {
		if values := query[p.name]; len(values) > 0 {
			*p.to = values[len(values)-1]
		} else if p.required {
			missing = append(missing, missingQuery{[2]string{"query", p.name}, "field required", "value_error.missing"})
		}
	}
	if missing != nil {
		body, err := json.Marshal(map[string]any{"detail": missing})
		return protocol.Result{Status: http.StatusUnprocessableEntity, Body: body}, err
	}
	if query.Has("encoding") && !slices.Contains(shape.Encodings, q.Encoding) {
		return protocol.Result{}, fault.Unprocessable(fmt.Sprintf("query.encoding: want %q or %q, got %.64q", shape.Encodings[0], shape.Encodings[1], q.Encoding))
	}
	if err := protocol.CheckSessionID(q.ID); err != nil {
		return protocol.Result{}, fault.BadRequest(err.Error())
	}
	c.Set(sessionKey, q.ID)
	body, err := json.Marshal(q)
	if err != nil {
		return protocol.Result{}, fmt.Errorf("encode query: %w", err)
	}
	return a.Fleet.Read(c.Request.Context(), routing.Request{ID: requestID(c), Session: q.ID, Body: body})
}

// workers is GET /workers.
func (a *api) workers(*gin.Context) (protocol.Result, error) {
	list := struct {
		Workers []protocol.Heartbeat `json:"workers"`
	}{a.Workers()}
	if list.Workers == nil {
		list.Workers = []protocol.Heartbeat{}
	}
	body, err := json.Marshal(list)
	return protocol.Result{Status: http.StatusOK, Body: body}, err
}

// ping is GET /: plain text, as the documented client compares it, and a JSON
// string for who asks for JSON.
func (a *api) ping(c *gin.Context) {
	if wantsJSON(c.Request.Header.Values("Accept")) {
		a.write(c, http.StatusOK, "application/json", []byte(`"ping"`))
		return
	}
	a.write(c, http.StatusOK, "text/plain; charset=utf-8", []byte("ping"))
}
