package api

import (
	"mime"
	"strconv"
	"strings"
)

// wantsJSON reports whether an Accept header names application/json, and not
// below text/plain. Wildcards name nothing in particular.
func wantsJSON(accept []string) bool {
	asked := false
	json, text := 0.0, 0.0
	for _, line := range accept {
		for part := range strings.SplitSeq(line, ",") {
			media, params, err := mime.ParseMediaType(part)
			if err != nil {
				continue
			}
			q := 1.0
			if s, ok := params["q"]; ok {
				if q, err = strconv.ParseFloat(s, 64); err != nil {
					continue
				}
			}
			switch media {
			case "application/json":
				asked, json = true, max(json, q)
			case "text/plain":
				text = max(text, q)
			}
		}
	}
	return asked && json > 0 && json >= text
}
