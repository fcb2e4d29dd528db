package engine

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/changes"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/instruction"
	cmount "github.com/cleatlabs/cleat/internal/mount"
)

// Commits tells what containers have changed in their filesystems, and makes images
// of it.
type Commits struct {
	fs     *filesystems
	images *image.Service
	still  *stillness
	say    *announcer
}

// CommitRequest is what POST /commit asks for.
type CommitRequest struct {
	Container       string
	Repo, Tag       string // without Repo the image has no name
	Author, Comment string
	// Changes are Dockerfile instructions.
	Changes []string
	// Pause lets the container stand still meanwhile.
	Pause bool
	// Config overrides the container's; it may be nil.
	Config *api.Config
}

// Commit makes an image of a container: its image with one more layer and its
// configuration. It returns the image's id.
func (cm *Commits) Commit(ctx context.Context, req CommitRequest) (id string, err error) {
	c, err := cm.fs.containers.Find(req.Container)
	if err != nil {
		return "", err
	}
	r := c.Load()
	if err := r.Whole(); err != nil {
		return "", err
	}
	switch r.State.Status {
	case api.StateRemoving, api.StateDead:
		return "", failure.Conflict("You cannot commit container %s which is %s", c.ID(), r.State.Status)
	}
	config, err := commitConfig(r.Config, req.Config, req.Changes)
	if err != nil {
		return "", err
	}
	base := imageOf(r)
	release := cm.images.Hold(base.ID)
	defer release()
	goOn := func() error { return nil }
	if req.Pause {
		resume, err := cm.still.quiesce(ctx, []string{c.ID()})
		if err != nil {
			return "", err
		}
		goOn = sync.OnceValue(resume)
	}
	made, name, err := cm.images.Make(ctx, image.MakeRequest{
		Base: base, Config: config, Author: req.Author, Comment: req.Comment, CreatedBy: strings.Join(r.Config.Cmd, " "),
		Repo: req.Repo, Tag: req.Tag,
		Layer: func(ctx context.Context, w io.Writer) (empty bool, err error) {
			s, release, err := cm.source(ctx, c)
			if err != nil {
				return false, err
			}
			defer release()
			empty, err = changes.Layer(ctx, s, w)
			// What is left to do does not need the container to stand still.
			return empty, errors.Join(err, goOn())
		},
	})
	err = errors.Join(err, goOn())
	if err != nil {
		return "", unlessGone(c, err)
	}
	attrs := []string{"comment", req.Comment, "imageID", made.String()}
	if name != "" {
		attrs = append(attrs, "imageRef", name)
	}
	cm.say.container(c, apievents.ActionCommit, attrs...)
	return made.String(), nil
}

// commitConfig is the configuration of the new image.
func commitConfig(of, override *api.Config, lines []string) (dockerspec.DockerOCIImageConfig, error) {
	config := *of
	if override != nil {
		config = *override
		below := imageConfig(of)
		if err := mergeImageConfig(&config, &below); err != nil {
			return below, err
		}
	}
	err := instruction.Apply(&config, lines)
	return imageConfig(&config), err
}

// imageConfig is the part of a container's configuration that belongs into an image.
func imageConfig(c *api.Config) dockerspec.DockerOCIImageConfig {
	var out dockerspec.DockerOCIImageConfig
	out.User, out.Env, out.Entrypoint, out.Cmd = c.User, slices.Clone(c.Env), slices.Clone(c.Entrypoint), slices.Clone(c.Cmd)
	out.WorkingDir, out.StopSignal, out.ArgsEscaped = c.WorkingDir, c.StopSignal, c.ArgsEscaped
	out.Labels, out.Volumes = maps.Clone(c.Labels), maps.Clone(c.Volumes)
	if len(c.ExposedPorts) > 0 {
		out.ExposedPorts = map[string]struct{}{}
		for p := range c.ExposedPorts {
			out.ExposedPorts[p.String()] = struct{}{}
		}
	}
	out.Healthcheck, out.OnBuild, out.Shell = c.Healthcheck, slices.Clone(c.OnBuild), slices.Clone(c.Shell)
	return out
}

// source opens the three views of a container's filesystem.
func (cm *Commits) source(ctx context.Context, c *container.Container) (s changes.Source, release func(), err error) {
	var closers []func()
	closeAll := func() {
		for _, f := range slices.Backward(closers) {
			f()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	lower, err := cm.fs.images.Lower(ctx, imageOf(c.Load()))
	if err != nil {
		return s, nil, err
	}
	if s.Lower, err = cm.openLower(lower); err != nil {
		return s, nil, err
	}
	closers = append(closers, func() { _ = unix.Close(s.Lower) })
	if s.Upper, err = unix.Open(c.Path(upperDir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return s, nil, &os.PathError{Op: "open", Path: c.Path(upperDir), Err: err}
	}
	closers = append(closers, func() { _ = unix.Close(s.Upper) })
	merged, err := cm.fs.bare(ctx, c)
	if err != nil {
		return s, nil, err
	}
	closers = append(closers, merged.close)
	s.Merged = merged.root
	return s, closeAll, nil
}

// openLower gives the image's layers as one directory.
func (cm *Commits) openLower(lower []string) (int, error) {
	if len(lower) == 1 {
		return unix.Open(lower[0], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	return cmount.Overlay{Lower: lower}.Mount(cm.fs.features)
}

// Changes lists what a container has changed in its root filesystem, in the order of paths.
func (cm *Commits) Changes(ctx context.Context, name string) ([]changes.Change, error) {
	c, err := cm.fs.containers.Find(name)
	if err == nil {
		err = c.Load().Whole()
	}
	if err != nil {
		return nil, err
	}
	s, release, err := cm.source(ctx, c)
	if err != nil {
		return nil, unlessGone(c, err)
	}
	defer release()
	list, err := changes.List(ctx, s)
	return list, unlessGone(c, err)
}

// Export opens a container's root filesystem, to be written as a tar stream. The caller
// closes what it returns.
func (cm *Commits) Export(ctx context.Context, name string) (*Export, error) {
	c, err := cm.fs.containers.Find(name)
	if err == nil {
		err = c.Load().Whole()
	}
	if err != nil {
		return nil, err
	}
	switch st := c.Load().State.Status; st {
	case api.StateRemoving, api.StateDead:
		return nil, failure.Conflict("You cannot export container %s which is %s", c.ID(), st)
	}
	f, err := cm.fs.bare(ctx, c)
	if err != nil {
		return nil, unlessGone(c, err)
	}
	return &Export{files: f, done: func() { cm.say.container(c, apievents.ActionExport) }}, nil
}

// Export is a root filesystem that is to be written.
type Export struct {
	files *files
	done  func()
}

// Write writes the filesystem as a tar stream, without what is mounted in it.
func (e *Export) Write(ctx context.Context, w io.Writer) error {
	if err := changes.Everything(ctx, e.files.root, w); err != nil {
		return err
	}
	e.done()
	return nil
}

// Close lets go of the filesystem.
func (e *Export) Close() { e.files.close() }
