// Package dockerconfig reads the configuration that Docker's clients keep for their user,
// config.json, and what is stored there, or by the credential helpers that it names, for
// registries.
package dockerconfig

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
)

// Load reads config.json of a directory; none is an empty one. A broken one is reported on
// warnings and the rest of it used, as Docker does: a typo there must not stop a container
// from being stopped.
func Load(dir string, warnings io.Writer) *configfile.ConfigFile {
	cfg, err := config.Load(dir)
	if err != nil {
		_, _ = fmt.Fprintln(warnings, "WARNING: Error loading config file:", err)
	}
	if cfg == nil {
		cfg = configfile.New(filepath.Join(dir, config.ConfigFileName))
	}
	return cfg
}

// Intact is an error where there is a config.json that cannot be read, or not all of it: to write it anew would lose what
// else it holds.
func Intact(cfg *configfile.ConfigFile) error {
	if _, err := config.Load(filepath.Dir(cfg.Filename)); err != nil {
		return fmt.Errorf("%w: correct it or move it away first, as all else that it holds would be lost", err)
	}
	return nil
}

// hubKey is the key under which Docker's clients have always stored what is for Docker Hub.
const hubKey = "https://index.docker.io/v1/"

// RegistryAuth returns the value of the header X-Registry-Auth for a registry's domain
// (docker.io, host:port), of empty credentials where none are stored. So it is where a credential
// helper fails, which is told to warn: most images ask for none, and Docker Desktop's helper stays
// named in many a config.json of a machine that does not have it any more. Docker's client does not even tell.
func RegistryAuth(cfg *configfile.ConfigFile, domain string, warn func(string)) (string, error) {
	key := domain
	if domain == "docker.io" {
		key = hubKey
	}
	auth, err := cfg.GetAuthConfig(key)
	if err != nil {
		warn(fmt.Sprintf("no credentials for %s are used: %v", domain, ExplainHelper(cfg, err)))
		auth = types.AuthConfig{}
	}
	return authconfig.Encode(registry.AuthConfig{
		Username: auth.Username, Password: auth.Password, Auth: auth.Auth, ServerAddress: auth.ServerAddress,
		IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken,
	})
}

// Store keeps what a registry has accepted where the configuration says. Where it says nothing and has none yet, that is
// the helper which is installed for this, as with Docker's client, or config.json where there is none. It is not
// config.json where the helper fails: who has a keychain counts on it, and there the password would be readable.
func Store(cfg *configfile.ConfigFile, auth types.AuthConfig) error {
	server := auth.ServerAddress
	helper := credentials.DetectDefaultStore("")
	if helper == "" || cfg.ContainsAuth() {
		return cfg.GetCredentialsStore(server).Store(auth)
	}
	cfg.CredentialsStore = helper
	if err := cfg.GetCredentialsStore(server).Store(auth); err != nil {
		return fmt.Errorf("%w: docker-credential-%s, which is installed here, keeps credentials by default: mend or remove it, or write {\"auths\": {%q: {}}} into %s, where they are then kept unencrypted, and log in again",
			err, helper, server, cfg.Filename)
	}
	return nil
}

// Credentials is the text of a config.json that has what is stored for all registries, also by credential helpers, and
// nothing else.
func Credentials(cfg *configfile.ConfigFile) (string, error) {
	all, err := cfg.GetAllCredentials()
	if err != nil {
		return "", ExplainHelper(cfg, err)
	}
	var text strings.Builder
	err = (&configfile.ConfigFile{AuthConfigs: all}).SaveToWriter(&text)
	return text.String(), err
}

// ExplainHelper says what to do about a credential helper that is not installed, as
// when Docker Desktop, whose helper it was, has been removed; other errors stay as they are.
func ExplainHelper(cfg *configfile.ConfigFile, err error) error {
	if err == nil || !strings.Contains(err.Error(), "docker-credential-") || !strings.Contains(err.Error(), "executable file not found") {
		return err
	}
	return fmt.Errorf("%w: install that helper, or take its name out of credsStore and credHelpers in %s and log in again", err, cfg.Filename)
}
