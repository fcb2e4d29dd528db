package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/docker/cli/cli/context/store"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/connect"
)

// contextEndpointMeta is a context's endpoint as Docker stores it.
type contextEndpointMeta struct {
	Host          string `json:",omitempty"`
	SkipTLSVerify bool
}

// contextStore is where Docker's clients keep their contexts, with the default one added, which is made of
// DOCKER_HOST and the flags and cannot be changed.
type contextStore struct {
	store.Store
	app *app
}

func (a *app) contexts() contextStore {
	dir := filepath.Join(a.configDir(), "contexts")
	anything := func() any { return &map[string]any{} } // other programs' fields are kept
	return contextStore{store.New(dir, store.NewConfig(anything, store.EndpointTypeGetter(dockerEndpoint, func() any { return &contextEndpointMeta{} }))), a}
}

func (s contextStore) defaultMeta() (store.Metadata, error) {
	ep, err := s.app.globals.DefaultEndpoint()
	return store.Metadata{
		Name: defaultContext, Metadata: map[string]any{},
		Endpoints: map[string]any{dockerEndpoint: contextEndpointMeta{ep.Host, ep.TLS && ep.SkipVerify}},
	}, err
}

func (s contextStore) GetMetadata(name string) (store.Metadata, error) {
	if name == defaultContext {
		return s.defaultMeta()
	}
	m, err := s.Store.GetMetadata(name)
	if err == nil && m.Metadata == nil {
		m.Metadata = map[string]any{}
	}
	return m, err
}

func (s contextStore) List() ([]store.Metadata, error) {
	list, err := s.Store.List()
	if err != nil {
		return nil, err
	}
	def, err := s.defaultMeta()
	return append(list, def), err
}

func (s contextStore) ListTLSFiles(name string) (map[string]store.EndpointFiles, error) {
	if name != defaultContext {
		return s.Store.ListTLSFiles(name)
	}
	files, err := s.defaultTLS()
	if err != nil || len(files) == 0 {
		return map[string]store.EndpointFiles{}, err
	}
	var names store.EndpointFiles
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	return map[string]store.EndpointFiles{dockerEndpoint: names}, nil
}

func (s contextStore) GetTLSData(name, endpoint, file string) ([]byte, error) {
	if name != defaultContext {
		return s.Store.GetTLSData(name, endpoint, file)
	}
	files, err := s.defaultTLS()
	if err != nil {
		return nil, err
	}
	data, ok := files[file]
	if !ok || endpoint != dockerEndpoint {
		return nil, fmt.Errorf("the default context has no %s of endpoint %s", file, endpoint)
	}
	return data, nil
}

func (s contextStore) GetStorageInfo(name string) store.StorageInfo {
	if name == defaultContext {
		return store.StorageInfo{MetadataPath: "<IN MEMORY>", TLSPath: "<IN MEMORY>"}
	}
	return s.Store.GetStorageInfo(name)
}

func (s contextStore) defaultTLS() (map[string][]byte, error) {
	ep, err := s.app.globals.DefaultEndpoint()
	if err != nil {
		return nil, err
	}
	return readTLSFiles(ep.CAFile, ep.CertFile, ep.KeyFile)
}

// readTLSFiles reads certificates under the names that they are stored by.
func readTLSFiles(ca, cert, key string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for name, path := range map[string]string{"ca.pem": ca, "cert.pem": cert, "key.pem": key} {
		if path == "" {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files[name] = data
	}
	return files, nil
}

// described gives contexts another description.
type described struct {
	store.Reader
	description string
}

func (d described) GetMetadata(name string) (store.Metadata, error) {
	m, err := d.Reader.GetMetadata(name)
	if fields, ok := m.Metadata.(map[string]any); ok && d.description != "" {
		fields["Description"] = d.description
	}
	return m, err
}

// endpointOf reads the value of --docker.
func (a *app) endpointOf(values map[string]string) (meta contextEndpointMeta, tls map[string][]byte, err error) {
	for key := range values {
		if !slices.Contains([]string{"from", "host", "ca", "cert", "key", "skip-tls-verify"}, key) {
			return meta, nil, errors.New("unrecognized config key: " + key)
		}
	}
	if from, ok := values["from"]; ok {
		m, err := a.contexts().GetMetadata(from)
		if err != nil {
			return meta, nil, err
		}
		meta, ok = m.Endpoints[dockerEndpoint].(contextEndpointMeta)
		if !ok {
			return meta, nil, fmt.Errorf("unable to get endpoint from context %q", from)
		}
		return meta, nil, nil
	}
	if tls, err = readTLSFiles(values["ca"], values["cert"], values["key"]); err != nil {
		return meta, nil, err
	}
	if skip, ok := values["skip-tls-verify"]; ok {
		if meta.SkipTLSVerify, err = strconv.ParseBool(skip); err != nil {
			return meta, nil, fmt.Errorf("skip-tls-verify: parsing %q: %w", skip, strconv.ErrSyntax)
		}
	}
	meta.Host = values["host"]
	ep := connect.Endpoint{
		Host: meta.Host, CAFile: values["ca"], CertFile: values["cert"], KeyFile: values["key"],
		TLS: len(tls) > 0 || meta.SkipTLSVerify, SkipVerify: meta.SkipTLSVerify,
	}
	// What cannot be connected with is better refused now than when it is used.
	options, err := ep.ClientOptions()
	if err == nil {
		_, err = client.New(options...)
	}
	if err != nil {
		return meta, nil, fmt.Errorf("invalid docker endpoint options: %w", err)
	}
	return meta, tls, nil
}
