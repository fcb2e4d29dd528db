package connect

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/cli/cli/config/configfile"
)

// Environ is env with what has another program reach the same engine with the same configuration, whichever of flags,
// environment and contexts named them to this one. It fails if the engine is reached with certificates whose files no
// environment can name.
func (o *Options) Environ(configuration func() *configfile.ConfigFile, env []string) ([]string, error) {
	env = slices.DeleteFunc(slices.Clone(env), func(s string) bool {
		name, _, _ := strings.Cut(s, "=")
		switch name {
		case "DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_HOST", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH":
			return true
		}
		return false
	})
	env = append(env, "DOCKER_CONFIG="+o.Dir())
	if name := o.ContextName(configuration); name != DefaultContext {
		return append(env, "DOCKER_CONTEXT="+name), nil
	}
	ep, err := o.DefaultEndpoint()
	if err != nil {
		return nil, err
	}
	env = append(env, "DOCKER_HOST="+ep.Host)
	if !ep.TLS {
		return env, nil
	}
	dir := filepath.Dir(o.TLSCA)
	for name, path := range map[string]string{"ca.pem": o.TLSCA, "cert.pem": o.TLSCert, "key.pem": o.TLSKey} {
		if existing(path) != "" && filepath.Clean(path) != filepath.Join(dir, name) {
			return nil, fmt.Errorf("%s: the programs that this command runs find certificates only as ca.pem, cert.pem and key.pem"+
				" in one directory: put them there and name it by DOCKER_CERT_PATH", path)
		}
	}
	env = append(env, "DOCKER_CERT_PATH="+dir, "DOCKER_TLS=1")
	if !ep.SkipVerify {
		env = append(env, "DOCKER_TLS_VERIFY=1")
	}
	return env, nil
}
