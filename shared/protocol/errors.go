package protocol

import "encoding/json"

// ErrorBody is the JSON body of every answer that is not a success.
func ErrorBody(detail string) []byte {
	b, _ := json.Marshal(struct {
		Detail string `json:"detail"`
	}{detail}) // a struct of one string always encodes
	return b
}
