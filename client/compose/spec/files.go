package spec

import (
	"fmt"
	"path"
	"strconv"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/mount"
)

// File is a secret or a config of a service.
type File struct {
	Kind     string // "secret" or "config"
	Declared types.FileObjectConfig
	Target   string // in the container
	Mode     int64
	UID, GID int
	// Owned says that owner or mode were asked for: they differ from the source's.
	Owned bool
}

// typeFile is the type of Cleat's mounts whose content is sent after the create; their source says where the engine
// keeps it.
const typeFile mount.Type = "file"

// Bound says whether the file is a bind mount of one of the host. Others are sent to the engine.
func (f *File) Bound(ownFiles bool) bool {
	return f.Declared.File != "" && !(ownFiles && f.Owned)
}

// place is where the engine keeps a file: what does not come from a file stays off the disk. The content of a config
// stands in the Compose file, and has to be there after a reboot, too.
func (f *File) place() string {
	if f.Declared.File == "" && (f.Declared.Environment != "" || f.Kind == "secret") {
		return "memory"
	}
	return "disk"
}

// Files are the secrets and configs of a service. An error names what is missing.
func Files(p *types.Project, s types.ServiceConfig) ([]File, error) {
	var files []File
	add := func(kind string, declared types.FileObjectConfig, ok bool, ref types.FileReferenceConfig, target string) error {
		switch {
		case !ok:
			return fmt.Errorf("refers to undefined %s %s", kind, ref.Source)
		case bool(declared.External):
			return fmt.Errorf("unsupported external %s %s: this engine keeps no %ss; give it a file, environment or content", kind, declared.Name, kind)
		}
		f := File{Kind: kind, Declared: declared, Target: target, Mode: 0o444, Owned: ref.Mode != nil || ref.UID != "" || ref.GID != ""}
		if ref.Mode != nil {
			f.Mode = int64(*ref.Mode)
		}
		for _, id := range []struct {
			key, text string
			to        *int
		}{{"uid", ref.UID, &f.UID}, {"gid", ref.GID, &f.GID}} {
			if id.text == "" {
				continue
			}
			n, err := strconv.ParseUint(id.text, 10, 31)
			if err != nil {
				return fmt.Errorf("%s %s: %s %q is no number of a user or group", kind, ref.Source, id.key, id.text)
			}
			*id.to = int(n)
		}
		files = append(files, f)
		return nil
	}
	for _, ref := range s.Secrets {
		declared, ok := p.Secrets[ref.Source]
		if err := add("secret", types.FileObjectConfig(declared), ok, types.FileReferenceConfig(ref), filePath("/run/secrets", types.FileReferenceConfig(ref))); err != nil {
			return nil, err
		}
	}
	for _, ref := range s.Configs {
		declared, ok := p.Configs[ref.Source]
		if err := add("config", types.FileObjectConfig(declared), ok, types.FileReferenceConfig(ref), filePath("/", types.FileReferenceConfig(ref))); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// files are the mounts of secrets and configs. Where the engine keeps no files, what does not lie in a file of the host
// is none: it is copied in by whoever makes the container.
func (r *Replica) files() ([]mount.Mount, error) {
	files, err := Files(r.Project, r.Service)
	if err != nil {
		return nil, err
	}
	var mounts []mount.Mount
	for _, f := range files {
		switch {
		case f.Bound(r.OwnFiles):
			mounts = append(mounts, mount.Mount{Type: mount.TypeBind, Source: f.Declared.File, Target: f.Target, ReadOnly: true, BindOptions: &mount.BindOptions{}})
		case r.OwnFiles:
			mounts = append(mounts, mount.Mount{Type: typeFile, Source: f.place(), Target: f.Target, ReadOnly: true})
		}
	}
	return mounts, nil
}

func filePath(dir string, f types.FileReferenceConfig) string {
	switch {
	case f.Target == "":
		return path.Join(dir, f.Source)
	case path.IsAbs(f.Target):
		return f.Target
	}
	return path.Join(dir, f.Target)
}
