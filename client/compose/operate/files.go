package operate

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/spec"
)

// copyFiles puts the secrets and configs whose contents stand in the project into a
// container that does not run yet.
func (o *Operator) copyFiles(ctx context.Context, r *spec.Replica, id string) error {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	any := false
	add := func(declared types.FileObjectConfig, ref types.FileReferenceConfig, path string) error {
		if declared.File != "" || bool(declared.External) {
			return nil
		}
		any = true
		text := declared.Content
		if declared.Environment != "" {
			value, ok := r.Project.Environment[declared.Environment]
			if !ok {
				return fmt.Errorf("environment variable %q required by file %q is not set", declared.Environment, declared.Name)
			}
			text = value
		}
		return addFile(w, ref, path, text)
	}
	for _, s := range r.Service.Secrets {
		ref := types.FileReferenceConfig(s)
		if err := add(types.FileObjectConfig(r.Project.Secrets[s.Source]), ref, spec.SecretPath(ref)); err != nil {
			return err
		}
	}
	for _, c := range r.Service.Configs {
		ref := types.FileReferenceConfig(c)
		if err := add(types.FileObjectConfig(r.Project.Configs[c.Source]), ref, spec.ConfigPath(ref)); err != nil {
			return err
		}
	}
	if !any {
		return nil
	}
	if err := w.Close(); err != nil {
		return err
	}
	_, err := o.API.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/", Content: &b, CopyUIDGID: true})
	if err != nil {
		return fmt.Errorf("write secrets and configs: %w", err)
	}
	return nil
}

// addFile adds one file, readable by all unless its entry says otherwise.
func addFile(w *tar.Writer, ref types.FileReferenceConfig, path, text string) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o444, Size: int64(len(text)), ModTime: time.Now()}
	if ref.Mode != nil {
		h.Mode = int64(*ref.Mode)
	}
	for _, id := range []struct {
		key, text string
		to        *int
	}{{"uid", ref.UID, &h.Uid}, {"gid", ref.GID, &h.Gid}} {
		if id.text == "" {
			continue
		}
		n, err := strconv.Atoi(id.text)
		if err != nil {
			return fmt.Errorf("%s: %s %q is no number", path, id.key, id.text)
		}
		*id.to = n
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write([]byte(text))
	return err
}

// lastLine reads a multiplexed stream to its end and keeps its last line.
func lastLine(r io.Reader) (string, error) {
	var tail tail
	if _, err := stdcopy.StdCopy(&tail, &tail, r); err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimRight(string(tail.kept), "\n"), "\n")
	return lines[len(lines)-1], nil
}

// tail keeps the end of what is written to it.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	const most = 4 << 10
	t.kept = append(t.kept, p...)
	t.kept = t.kept[max(0, len(t.kept)-most):]
	return len(p), nil
}
