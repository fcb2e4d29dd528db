package solve

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/console"
	bkclient "github.com/moby/buildkit/client"

	"github.com/cleatlabs/cleat/client/build/option"
)

// AllowLocalDelete is the right that this side gives, not the engine: to delete what is in
// a directory of an output and not in the result.
const AllowLocalDelete = "buildx.local.delete"

// storeExporter puts an image into the engine's own store.
const storeExporter = "moby"

// addOutputs adds where the result goes: by default into the engine's image store.
func (t *Target) addOutputs(so *bkclient.SolveOpt) error {
	outputs := t.outputs()
	names, err := t.names()
	if err != nil {
		return err
	}
	stdout := false
	for _, o := range outputs {
		ex, err := t.export(o, names, &stdout)
		if err != nil {
			return err
		}
		if ex != nil {
			so.Exports = append(so.Exports, *ex)
		}
	}
	return nil
}

// outputs are those asked for and those that --push and --load stand for.
func (t *Target) outputs() []option.Output {
	var list []option.Output
	pushed, loaded := !t.Push, !t.Load
	for _, o := range t.Outputs {
		o.Attrs = maps.Clone(o.Attrs)
		if o.Attrs == nil {
			o.Attrs = map[string]string{}
		}
		if o.Type == "registry" {
			o.Type, o.Attrs["push"] = "image", "true"
			setDefault(o.Attrs, "unpack", "false")
		}
		if t.Push && o.Type == "image" {
			o.Attrs["push"], pushed = "true", true
		}
		loaded = loaded || (o.Type == "docker" && o.Dest == "")
		list = append(list, o)
	}
	if !pushed {
		list = append(list, option.Output{Type: "image", Attrs: map[string]string{"push": "true", "unpack": "false"}})
	}
	if !loaded {
		list = append(list, option.Output{Type: "docker", Attrs: map[string]string{}})
	}
	if off, _ := strconv.ParseBool(os.Getenv("BUILDX_NO_DEFAULT_LOAD")); len(list) == 0 && !off && t.Call == nil && !t.NoOutput {
		list = append(list, option.Output{Type: "image", Attrs: map[string]string{}})
	}
	return list
}

// leaves says whether the result goes to a registry or into an archive of images.
func (t *Target) leaves() bool {
	for _, o := range t.outputs() {
		if push, _ := strconv.ParseBool(o.Attrs["push"]); push || o.Type == "oci" {
			return true
		}
	}
	return false
}

// export is an output as the engine's exporters take it; nil is none.
func (t *Target) export(o option.Output, names string, stdout *bool) (*bkclient.ExportEntry, error) {
	ex := &bkclient.ExportEntry{Type: o.Type, Attrs: o.Attrs}
	maps.Copy(ex.Attrs, t.Annotations)
	switch o.Type {
	case "cacheonly":
		return nil, nil
	case "local":
		return ex, t.toDir(ex, o)
	case "tar":
		return ex, toFile(ex, o, stdout)
	case "oci", "docker":
		set(ex.Attrs, "name", names)
		if tar, err := strconv.ParseBool(ex.Attrs["tar"]); err == nil && !tar {
			return ex, t.toDir(ex, o)
		}
		if o.Type == "docker" && o.Dest == "" {
			ex.Type = storeExporter
			ex.Attrs["prefer-image-digest"] = "true"
			return ex, nil
		}
		return ex, toFile(ex, o, stdout)
	case "image":
		set(ex.Attrs, "name", names)
		if push, _ := strconv.ParseBool(ex.Attrs["push"]); push && ex.Attrs["name"] == "" {
			return nil, errors.New("tag is needed when pushing to registry: name the image with -t REGISTRY/REPOSITORY:TAG")
		}
		ex.Type = storeExporter
		ex.Attrs["prefer-image-digest"] = "true"
		return ex, nil
	}
	return nil, fmt.Errorf("unknown output type %q: choose docker, image, registry, local, tar, oci or cacheonly", o.Type)
}

func (t *Target) toDir(ex *bkclient.ExportEntry, o option.Output) error {
	if o.Dest == "" {
		return fmt.Errorf("dest is required for %s output: write 'type=%s,dest=DIRECTORY'", o.Type, o.Type)
	}
	if o.Dest == "-" {
		return fmt.Errorf("dest cannot be stdout for %s output, which is a directory", o.Type)
	}
	if st, err := os.Stat(o.Dest); err == nil && !st.IsDir() {
		return fmt.Errorf("destination directory %s is a file", o.Dest)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("invalid destination directory %s: %w", o.Dest, err)
	}
	ex.OutputDir = o.Dest
	return t.checkDelete(ex)
}

// checkDelete lets an output delete files only below the working directory, unless it is
// allowed elsewhere.
func (t *Target) checkDelete(ex *bkclient.ExportEntry) error {
	mode, err := bkclient.ParseLocalExporterMode(ex.Attrs["mode"])
	if err != nil {
		return err
	}
	if mode != bkclient.LocalExporterModeDelete {
		return nil
	}
	for _, right := range t.Allow {
		if right == AllowLocalDelete {
			return nil
		}
	}
	wd, err := os.Getwd()
	if err == nil {
		wd, err = filepath.EvalSymlinks(wd)
	}
	if err != nil {
		return fmt.Errorf("the working directory cannot be told: %w", err)
	}
	dest, err := filepath.Abs(ex.OutputDir)
	if err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(dest); err == nil {
		dest = real
	}
	if rel, err := filepath.Rel(wd, dest); err == nil && rel != "." && rel != ".." && !strings.HasPrefix(rel, "../") {
		return nil
	}
	return fmt.Errorf("local output mode=delete for destination %q requires --allow=%s", ex.OutputDir, AllowLocalDelete)
}

func toFile(ex *bkclient.ExportEntry, o option.Output, stdout *bool) error {
	if o.Dest == "" || o.Dest == "-" {
		if *stdout {
			return errors.New("multiple outputs configured to write to stdout")
		}
		if _, err := console.ConsoleFromFile(os.Stdout); err == nil {
			return fmt.Errorf("dest file is required for %s output. refusing to write to console", o.Type)
		}
		*stdout = true
		ex.Output = func(map[string]string) (io.WriteCloser, error) { return os.Stdout, nil }
		return nil
	}
	if st, err := os.Stat(o.Dest); err == nil && st.IsDir() {
		return fmt.Errorf("destination file %s is a directory", o.Dest)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("invalid destination file %s: %w", o.Dest, err)
	}
	ex.Output = func(map[string]string) (io.WriteCloser, error) { return &lazyFile{path: o.Dest}, nil }
	return nil
}

// lazyFile is made with its first byte, so that a build that fails leaves what was there.
type lazyFile struct {
	path string
	f    *os.File
}

func (l *lazyFile) Write(p []byte) (int, error) {
	if l.f == nil {
		if err := os.MkdirAll(filepath.Dir(l.path), 0o755); err != nil {
			return 0, err
		}
		f, err := os.Create(l.path)
		if err != nil {
			return 0, err
		}
		l.f = f
	}
	return l.f.Write(p)
}

func (l *lazyFile) Close() error {
	if l.f == nil {
		return nil
	}
	return l.f.Close()
}

func setDefault(m map[string]string, key, value string) {
	if _, ok := m[key]; !ok {
		m[key] = value
	}
}
