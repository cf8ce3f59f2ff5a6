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
	return a.limited(func(c *gin.Context) (protocol.Result, error) {
		body, session, err := a.readForm(c, form)
		if err != nil {
			return protocol.Result{}, err
		}
		defer body.release()
		return do(c.Request.Context(), routing.Request{ID: requestID(c), Session: session, Caller: caller(c), Body: body.bytes})
	})
}

// readForm reads a JSON body of the given form and the session id in it.
func (a *api) readForm(c *gin.Context, form *shape.Form) (*body, string, error) {
	body, err := a.readBody(c)
	if err != nil {
		return nil, "", err
	}
	session, err := form.Check(body.bytes)
	var wrong *shape.Error
	if errors.As(err, &wrong) {
		err = fault.Unprocessable(wrong.Detail)
	} else if err == nil {
		if err = protocol.CheckSessionID(session); err != nil {
			err = fault.BadRequest(err.Error())
		}
	}
	if err != nil {
		body.release()
		return nil, "", err
	}
	c.Set(sessionKey, session)
	return body, session, nil
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
func (a *api) workers(c *gin.Context) (protocol.Result, error) {
	list := struct {
		Workers []protocol.Heartbeat `json:"workers"`
		Queues  []Queue              `json:"queues"`
		Waiting int                  `json:"waiting"`
	}{a.Workers(), a.Queues(c.Request.Context()), a.Gate.Waiting()}
	if list.Workers == nil {
		list.Workers = []protocol.Heartbeat{}
	}
	if list.Queues == nil {
		list.Queues = []Queue{}
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
