package registryclient_test

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/registryclient"
)

func TestConfigurationIsChecked(t *testing.T) {
	cases := []struct {
		name string
		cfg  registryclient.Config
		text string // "" is fine
	}{
		{"nothing", registryclient.Config{}, ""},
		{"mirrors", registryclient.Config{Mirrors: []string{"https://m.example", "http://127.0.0.1:5000/"}}, ""},
		{"mirror without scheme", registryclient.Config{Mirrors: []string{"m.example"}}, "must start with http:// or https://"},
		{"mirror with path", registryclient.Config{Mirrors: []string{"https://m.example/v2"}}, "must end after the host and port"},
		{"mirror with query", registryclient.Config{Mirrors: []string{"https://m.example?x=1"}}, "must end after the host and port"},
		{"mirror without host", registryclient.Config{Mirrors: []string{"https://"}}, "names no host"},
		{"mirror with password", registryclient.Config{Mirrors: []string{"https://u:secret@m.example"}}, "a user name or password in the URL"},
		{"insecure", registryclient.Config{Insecure: []string{"r.example", "r.example:5000", "10.0.0.0/8", "fd00::/8"}}, ""},
		{"insecure with scheme", registryclient.Config{Insecure: []string{"http://r.example"}}, "without a scheme"},
		{"insecure with path", registryclient.Config{Insecure: []string{"r.example/x"}}, "host, host:port or CIDR"},
		{"insecure empty", registryclient.Config{Insecure: []string{""}}, "host, host:port or CIDR"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := registryclient.New(c.cfg)
			if c.text == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %v, want one with %q", err, c.text)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the password is told: %v", err)
			}
		})
	}
}
