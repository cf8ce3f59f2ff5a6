package api

import (
	"crypto/sha256"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/gradefleet/gradefleet/gateway/internal/admit"
	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// identify finds out who asks: the API key it sent, or else its address.
func (a *api) identify(c *gin.Context) (name string) {
	key := apiKey(c.Request.Header)
	if key == "" {
		name = callerName(c.ClientIP())
		c.Set(callerKey, name)
		c.Set(allowedKey, len(a.Keys) == 0)
		return name
	}
	digest := sha256.Sum256([]byte(key))
	_, valid := a.Keys[digest]
	name = keyName(digest)
	c.Set(callerKey, name)
	c.Set(allowedKey, valid || len(a.Keys) == 0)
	return name
}

// apiKey is the key that a request carries, "" if none.
func apiKey(h http.Header) string {
	if key := h.Get("X-API-Key"); key != "" {
		return key
	}
	if scheme, key, ok := strings.Cut(h.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(key)
	}
	return ""
}

// caller names who asks, for limits, logs and metrics.
func caller(c *gin.Context) string { return c.GetString(callerKey) }

// keyed reports whether the caller identified itself by a key.
func keyed(c *gin.Context) bool { return strings.HasPrefix(caller(c), "key:") }

var errKey = &fault.Error{Status: http.StatusUnauthorized, Detail: "Send a valid API key, as X-API-Key or as Authorization: Bearer"}

// known lets only callers in that have a valid key, where keys are asked for.
func (a *api) known(h handler) gin.HandlerFunc {
	return a.handle(func(c *gin.Context) (protocol.Result, error) {
		if err := a.authorize(c); err != nil {
			return protocol.Result{}, err
		}
		return h(c)
	})
}

func (a *api) authorize(c *gin.Context) error {
	if c.GetBool(allowedKey) {
		return nil
	}
	c.Header("WWW-Authenticate", "Bearer")
	return errKey
}

// limited is known, within the limits of the caller.
func (a *api) limited(h handler) gin.HandlerFunc {
	return a.known(func(c *gin.Context) (protocol.Result, error) {
		visit, err := a.Gate.Arrive(caller(c))
		if err != nil {
			return protocol.Result{}, err
		}
		defer visit.Leave()
		c.Set(visitKey, &visit)
		return h(c)
	})
}

// hold counts a body's memory.
func hold(c *gin.Context, bytes int64) error {
	if v, ok := c.Get(visitKey); ok {
		return v.(*admit.Visit).Hold(bytes)
	}
	return nil
}
