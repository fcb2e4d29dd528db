package spec

import (
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/mount"
)

// mounts are the service's volumes, secrets and configs, in Docker's older form of binds
// where that can say it: it makes a missing source on the host, as users expect.
func (r *Replica) mounts() ([]string, []mount.Mount, error) {
	var binds []string
	var mounts []mount.Mount
	for _, v := range r.Service.Volumes {
		if bind, ok := r.bind(v); ok {
			binds = append(binds, bind)
			continue
		}
		m, err := r.mount(v)
		if err != nil {
			return nil, nil, err
		}
		mounts = append(mounts, m)
	}
	mounts = append(mounts, r.inherited(binds, mounts)...)
	files, err := r.files()
	if err != nil {
		return nil, nil, err
	}
	return binds, append(mounts, files...), nil
}

// bind is a volume as SOURCE:TARGET:MODE, false for one that needs the longer form.
func (r *Replica) bind(v types.ServiceVolumeConfig) (string, bool) {
	mode := []string{"rw"}
	if v.ReadOnly {
		mode[0] = "ro"
	}
	source := v.Source
	switch v.Type {
	case types.VolumeTypeBind:
		b := v.Bind
		if b != nil {
			if !bool(b.CreateHostPath) || b.Recursive != "" {
				return "", false
			}
			mode = append(mode, bindModes(b)...)
		}
	case types.VolumeTypeVolume:
		if source == "" || v.Volume != nil && (v.Volume.Subpath != "" || len(v.Volume.Labels) > 0) {
			return "", false
		}
		if declared, ok := r.Project.Volumes[source]; ok {
			source = declared.Name
		}
		if v.Bind != nil { // db:/data:Z is written so
			mode = append(mode, bindModes(v.Bind)...)
		}
		if v.Volume != nil && v.Volume.NoCopy {
			mode = append(mode, "nocopy")
		}
	default:
		return "", false
	}
	if strings.Contains(source, ":") || strings.Contains(v.Target, ":") {
		return "", false
	}
	return source + ":" + v.Target + ":" + strings.Join(mode, ","), true
}

func bindModes(b *types.ServiceVolumeBind) (modes []string) {
	for _, m := range []string{b.Propagation, b.SELinux} {
		if m != "" {
			modes = append(modes, m)
		}
	}
	return modes
}

// mount is a volume in the longer form.
func (r *Replica) mount(v types.ServiceVolumeConfig) (mount.Mount, error) {
	m := mount.Mount{Type: mount.Type(v.Type), Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly, Consistency: mount.Consistency(v.Consistency)}
	switch v.Type {
	case types.VolumeTypeBind:
		if b := v.Bind; b != nil {
			if b.SELinux != "" {
				return m, fmt.Errorf("volume %s: selinux cannot be combined with create_host_path: false or recursive", v.Target)
			}
			m.BindOptions = &mount.BindOptions{Propagation: mount.Propagation(b.Propagation), CreateMountpoint: bool(b.CreateHostPath)}
			switch b.Recursive {
			case "", "enabled":
			case "disabled":
				m.BindOptions.NonRecursive = true
			case "writable":
				m.BindOptions.ReadOnlyNonRecursive = true
			case "readonly":
				m.BindOptions.ReadOnlyForceRecursive = true
			default:
				return m, fmt.Errorf("volume %s: unknown value %q of recursive", v.Target, b.Recursive)
			}
		}
	case types.VolumeTypeVolume:
		if drive, dir, ok := strings.Cut(v.Target, ":/"); ok && v.Source == "" && len(drive) == 1 {
			return m, fmt.Errorf("volumes: %s is read as a path of Windows, with a drive: give the volume a name of two letters or more, or write {type: volume, source: %s, target: /%s}",
				v.Target, drive, dir)
		}
		if declared, ok := r.Project.Volumes[v.Source]; ok {
			m.Source = declared.Name
		}
		if o := v.Volume; o != nil {
			m.VolumeOptions = &mount.VolumeOptions{NoCopy: o.NoCopy, Subpath: o.Subpath, Labels: o.Labels}
		}
	case types.VolumeTypeTmpfs:
		if o := v.Tmpfs; o != nil {
			m.TmpfsOptions = &mount.TmpfsOptions{SizeBytes: int64(o.Size), Mode: os.FileMode(o.Mode)}
		}
	case types.VolumeTypeImage:
		if o := v.Image; o != nil {
			m.ImageOptions = &mount.ImageOptions{Subpath: o.SubPath}
		}
	default:
		return m, fmt.Errorf("volume %s: unsupported type %q", v.Target, v.Type)
	}
	return m, nil
}

// inherited are the volumes of the container that is replaced for which the image asks; those that the file has without
// a name are given theirs in mounts. What else it had is not asked for any more.
func (r *Replica) inherited(binds []string, mounts []mount.Mount) []mount.Mount {
	if r.Replaces == nil {
		return nil
	}
	taken := map[string]bool{}
	for _, b := range binds {
		if fields := strings.Split(b, ":"); len(fields) > 1 {
			taken[path.Clean(fields[1])] = true
		}
	}
	anonymous := map[string]int{}
	for i, m := range mounts {
		if m.Type == mount.TypeVolume && m.Source == "" {
			anonymous[path.Clean(m.Target)] = i
		} else {
			taken[path.Clean(m.Target)] = true
		}
	}
	var kept []mount.Mount
	for _, old := range r.Replaces.Mounts {
		target := path.Clean(old.Destination)
		if old.Type != mount.TypeVolume || taken[target] || r.declared(old.Name) {
			continue
		}
		if i, ok := anonymous[target]; ok {
			mounts[i].Source = old.Name
			continue
		}
		if _, ofImage := r.ImageVolumes[old.Destination]; !ofImage {
			continue
		}
		kept = append(kept, mount.Mount{Type: mount.TypeVolume, Source: old.Name, Target: target, ReadOnly: !old.RW})
	}
	return kept
}

// declared says whether a volume is one of the project's: it is not anonymous.
func (r *Replica) declared(name string) bool {
	for _, v := range r.Project.Volumes {
		if v.Name == name {
			return true
		}
	}
	return false
}
