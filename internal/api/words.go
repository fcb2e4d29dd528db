package api

import (
	"encoding/json"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/engine"
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

// exposed are ports that are exposed; a range in one entry stands for its ports.
type exposed network.PortSet

func (e *exposed) UnmarshalJSON(text []byte) error {
	var entries map[string]struct{}
	if err := json.Unmarshal(text, &entries); err != nil || entries == nil {
		return err
	}
	ports, err := engine.ExposedPorts(entries)
	*e = exposed(ports)
	return err
}

// createBody is the body of a create request; its command lines and exposed ports shadow those
// of the configuration.
type createBody struct {
	container.CreateRequest
	Cmd          words
	Entrypoint   words
	ExposedPorts exposed
}

// request is the body with its command lines where they belong.
func (b *createBody) request() *container.CreateRequest {
	if b.Config == nil && (b.Cmd != nil || b.Entrypoint != nil || b.ExposedPorts != nil) {
		b.Config = &container.Config{}
	}
	if b.Config != nil {
		b.Config.Cmd, b.Config.Entrypoint, b.Config.ExposedPorts = b.Cmd, b.Entrypoint, network.PortSet(b.ExposedPorts)
	}
	return &b.CreateRequest
}

// commitBody is the body of a commit request, likewise.
type commitBody struct {
	container.Config
	Cmd          words
	Entrypoint   words
	ExposedPorts exposed
}

// config is nil for no body.
func (b *commitBody) config() *container.Config {
	if b == nil {
		return nil
	}
	b.Config.Cmd, b.Config.Entrypoint, b.Config.ExposedPorts = b.Cmd, b.Entrypoint, network.PortSet(b.ExposedPorts)
	return &b.Config
}
