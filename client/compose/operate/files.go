package operate

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/spec"
)

// unbound are the secrets and configs of a service that no bind mount brings.
func (o *Operator) unbound(ctx context.Context, p *types.Project, s types.ServiceConfig) (files []spec.File, own bool, err error) {
	if len(s.Secrets) == 0 && len(s.Configs) == 0 {
		return nil, false, nil
	}
	if err := o.external(ctx, p, s); err != nil {
		return nil, false, fmt.Errorf("service %q: %w", s.Name, err)
	}
	all, err := spec.Files(p, s)
	if err != nil {
		return nil, false, fmt.Errorf("service %q: %w", s.Name, err)
	}
	asked := false
	for _, f := range all {
		if _, err := contentOf(p, &f); f.Declared.File == "" && err != nil {
			return nil, false, err // before anything is made
		}
		if !f.Bound(true) && !asked {
			if own, err = o.IsCleat(ctx); err != nil {
				return nil, false, err
			}
			asked = true
		}
		if !f.Bound(own) {
			files = append(files, f)
		} else if f.Owned {
			o.Report.Warn(fmt.Sprintf("service %q: %s %s: this engine cannot give another owner or mode to a file that is bind mounted: uid, gid and mode have no effect",
				s.Name, f.Kind, f.Declared.Name))
		}
	}
	return files, own, nil
}

// external looks for the secrets and configs that the engine itself is to have, and says what to do about them: only a
// swarm has any, and gives them to its own services alone.
func (o *Operator) external(ctx context.Context, p *types.Project, s types.ServiceConfig) error {
	for _, ref := range s.Secrets {
		if d := p.Secrets[ref.Source]; bool(d.External) {
			list, err := o.API.SecretList(ctx, client.SecretListOptions{Filters: make(client.Filters).Add("name", d.Name)})
			return notOurs("secret", d.Name, err == nil && len(list.Items) > 0)
		}
	}
	for _, ref := range s.Configs {
		if d := p.Configs[ref.Source]; bool(d.External) {
			list, err := o.API.ConfigList(ctx, client.ConfigListOptions{Filters: make(client.Filters).Add("name", d.Name)})
			return notOurs("config", d.Name, err == nil && len(list.Items) > 0)
		}
	}
	return nil
}

func notOurs(kind, name string, found bool) error {
	sources := "file or environment"
	if kind == "config" {
		sources = "file, environment or content"
	}
	if found {
		return fmt.Errorf("unsupported external %s %q: the engine gives it to services of its swarm alone; declare it with %s", kind, name, sources)
	}
	return fmt.Errorf("external %s %q not found: the engine has no %ss of its own; declare it with %s", kind, name, kind, sources)
}

// IsCleat asks the engine, once, whether it is Cleat, which keeps files for containers and ends no log early.
func (o *Operator) IsCleat(ctx context.Context) (bool, error) {
	o.product.Lock()
	defer o.product.Unlock()
	if o.product.known {
		return o.product.cleat, nil
	}
	version, err := o.API.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return false, err
	}
	for _, c := range version.Components {
		o.product.cleat = o.product.cleat || c.Details["Product"] == "Cleat"
	}
	o.product.known = true
	return o.product.cleat, nil
}

// sendFiles gives a container that does not run the contents of its secrets and configs: to Cleat, which keeps them, or
// by a copy into the container's own files, where another engine keeps none.
func (o *Operator) sendFiles(ctx context.Context, p *types.Project, files []spec.File, own bool, id string) error {
	if len(files) == 0 || o.DryRun {
		return nil
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		text, err := contentOf(p, &f)
		if err != nil {
			return err
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.Target, Mode: f.Mode, Uid: f.UID, Gid: f.GID, Size: int64(len(text)), ModTime: time.Now()}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	var err error
	if own {
		err = o.put(ctx, "/cleat/containers/"+id+"/files", &b)
	} else {
		_, err = o.API.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/", Content: &b})
	}
	if err != nil {
		return fmt.Errorf("write secrets and configs: %w", err)
	}
	return nil
}

func contentOf(p *types.Project, f *spec.File) ([]byte, error) {
	d := &f.Declared
	switch {
	case d.File != "":
		text, err := os.ReadFile(d.File)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", f.Kind, d.Name, err)
		}
		return text, nil
	case d.Content != "": // of an include, too, whose environment is its own
		return []byte(d.Content), nil
	case d.Environment != "":
		value, ok := p.Environment[d.Environment]
		if !ok {
			return nil, fmt.Errorf("environment variable %q required by %s %q is not set", d.Environment, f.Kind, d.Name)
		}
		return []byte(value), nil
	}
	return nil, nil
}

// fill sends a container that is to be started the contents of its secrets and configs, as they are now.
func (o *Operator) fill(ctx context.Context, p *types.Project, s types.ServiceConfig, id string) error {
	files, own, err := o.unbound(ctx, p, s)
	if err != nil {
		return err
	}
	return o.sendFiles(ctx, p, files, own, id)
}

// put calls an operation that Docker's API does not have.
func (o *Operator) put(ctx context.Context, route string, body io.Reader) error {
	base := ""
	if host := o.API.DaemonHost(); !strings.HasPrefix(host, "unix:") {
		if u, err := client.ParseHostURL(host); err == nil {
			base = u.Path
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+client.DummyHost+path.Join("/", base, route), body)
	if err != nil {
		return err
	}
	for key, value := range o.Headers {
		req.Header.Set(key, value)
	}
	req.Header.Set("Content-Type", "application/x-tar")
	dial := o.API.Dialer()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < http.StatusBadRequest {
		return nil
	}
	var said struct{ Message string }
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if json.Unmarshal(text, &said) != nil || said.Message == "" {
		said.Message = resp.Status
	}
	return errors.New("Error response from daemon: " + said.Message) //nolint:staticcheck // Docker's text
}
