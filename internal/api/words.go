package api

import (
	"encoding/json"

	"github.com/moby/moby/api/types/container"
)

// words is a command line. The API's description has it "as a string or an array of
// strings", and a string is one word: what is in it is not taken apart.
type words []string

func (w *words) UnmarshalJSON(text []byte) error {
	if text[0] != '"' {
		return json.Unmarshal(text, (*[]string)(w))
	}
	var word string
	if err := json.Unmarshal(text, &word); err != nil {
		return err
	}
	*w = words{word}
	return nil
}

// createBody is the body of a create request; its command lines shadow those of the
// configuration.
type createBody struct {
	container.CreateRequest
	Cmd        words
	Entrypoint words
}

// request is the body with its command lines where they belong.
func (b *createBody) request() *container.CreateRequest {
	if b.Config == nil && (b.Cmd != nil || b.Entrypoint != nil) {
		b.Config = &container.Config{}
	}
	if b.Config != nil {
		b.Config.Cmd, b.Config.Entrypoint = b.Cmd, b.Entrypoint
	}
	return &b.CreateRequest
}

// commitBody is the body of a commit request, likewise.
type commitBody struct {
	container.Config
	Cmd        words
	Entrypoint words
}

// config is nil for no body.
func (b *commitBody) config() *container.Config {
	if b == nil {
		return nil
	}
	b.Config.Cmd, b.Config.Entrypoint = b.Cmd, b.Entrypoint
	return &b.Config
}
