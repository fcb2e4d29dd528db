package connect

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/docker/cli/cli/config/configfile"
)

const customHeaders = "DOCKER_CUSTOM_HEADERS"

// Headers are what is sent with every request: those of the variable DOCKER_CUSTOM_HEADERS, which are NAME=VALUE with
// commas between them, quoted as in CSV; without it those of the configuration. As with Docker's client, which a proxy
// in front of the engine may ask them of, the variable takes the place of the configuration's.
func Headers(cfg *configfile.ConfigFile) (map[string]string, error) {
	value := os.Getenv(customHeaders)
	if value == "" {
		return cfg.HTTPHeaders, nil
	}
	pairs, err := csv.NewReader(strings.NewReader(value)).Read()
	if err != nil {
		return nil, fmt.Errorf("failed to parse custom headers from %s environment variable: value must be formatted as comma-separated key=value pairs", customHeaders)
	}
	headers := map[string]string{}
	for _, pair := range pairs {
		name, text, ok := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		switch {
		case name == "":
			return nil, fmt.Errorf("failed to set custom headers from %s environment variable: value contains a key=value pair with an empty key: '%s'", customHeaders, pair)
		case !ok:
			return nil, fmt.Errorf("failed to set custom headers from %s environment variable: missing \"=\" in key=value pair: '%s'", customHeaders, pair)
		}
		headers[http.CanonicalHeaderKey(name)] = text
	}
	return headers, nil
}
