package engine

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/cleatlabs/cleat/internal/failure"

	own "github.com/cleatlabs/cleat/internal/container"
)

const localDriver = "local"

// mountPlan is the mounts of a request, checked but with no volume made yet.
type mountPlan struct {
	mounts []own.Mount
	taken  map[string]bool // destinations of mounts
	// volumes are labels and driver of the volumes to make, by index in mounts.
	volumes map[int]volumeSpec
}

type volumeSpec struct {
	driver string
	opts   map[string]string
	labels map[string]string
}

// planMounts reads Binds, Mounts, Tmpfs and Volumes of a merged request.
func planMounts(c *container.Config, h *container.HostConfig, inherited []own.Mount) (*mountPlan, error) {
	p := &mountPlan{taken: map[string]bool{}, volumes: map[int]volumeSpec{}}
	for _, b := range h.Binds {
		m, err := parseBind(b, h.VolumeDriver)
		if err != nil {
			return nil, err
		}
		if err := p.add(m, volumeSpec{driver: h.VolumeDriver}); err != nil {
			return nil, err
		}
	}
	for i := range h.Mounts {
		m, spec, err := parseMount(&h.Mounts[i])
		if err != nil {
			return nil, err
		}
		if err := p.add(m, spec); err != nil {
			return nil, err
		}
	}
	for dst, opts := range h.Tmpfs {
		m, err := parseTmpfs(dst, opts)
		if err != nil {
			return nil, err
		}
		if err := p.add(m, volumeSpec{}); err != nil {
			return nil, err
		}
	}
	// What the request did not say comes from --volumes-from, the last of them first, then the image.
	for _, m := range slices.Backward(inherited) {
		if !p.taken[m.Destination] {
			p.place(m)
		}
	}
	for dst := range c.Volumes {
		clean, err := checkTarget("/"+dst, dst) // images have relative ones (VOLUME data)
		if err != nil {
			return nil, err
		}
		if p.taken[clean] {
			continue
		}
		p.volumes[len(p.mounts)] = volumeSpec{driver: h.VolumeDriver}
		p.place(own.Mount{Type: mount.TypeVolume, Destination: clean, Driver: localDriver, CopyUp: true, Anonymous: true})
	}
	return p, nil
}

// shallow makes the read-only binds of HostConfig.Binds, which are those that may
// make their source, writable below.
func (p *mountPlan) shallow() {
	for i := range p.mounts {
		if m := &p.mounts[i]; m.Type == mount.TypeBind && m.CreateSource && m.ReadOnly {
			m.ReadOnlyNonRecursive = true
		}
	}
}

func (p *mountPlan) place(m own.Mount) {
	p.taken[m.Destination] = true
	p.mounts = append(p.mounts, m)
}

func (p *mountPlan) add(m own.Mount, spec volumeSpec) error {
	if p.taken[m.Destination] {
		return failure.Invalid("Duplicate mount point: %s", m.Destination)
	}
	if m.Type == mount.TypeVolume {
		p.volumes[len(p.mounts)] = spec
	}
	p.place(m)
	return nil
}

// checkTarget cleans a mount target; spec is the request it stands in.
func checkTarget(target, spec string) (string, error) {
	if !path.IsAbs(target) {
		return "", failure.Invalid("invalid volume specification: '%s': invalid mount path: '%s' mount path must be absolute", spec, target)
	}
	if strings.ContainsRune(target, 0) {
		return "", failure.Invalid("invalid volume specification: %q holds a zero byte", spec)
	}
	clean := path.Clean(target)
	if clean == "/" {
		return "", failure.Invalid("invalid volume specification: '%s': invalid specification: destination can't be '/'", spec)
	}
	return clean, nil
}

// splitBind takes source:target[:mode] or a target alone apart, and cleans the target.
func splitBind(raw string) (source, target, mode string, err error) {
	malformed := func() error { return failure.Invalid("invalid volume specification: '%s'", raw) }
	if strings.ContainsRune(raw, 0) {
		return "", "", "", failure.Invalid("invalid volume specification: %q holds a zero byte", raw)
	}
	parts := strings.Split(raw, ":")
	switch len(parts) {
	case 1:
		target = parts[0]
	case 2:
		if _, err := parseModes(parts[1]); err == nil && !strings.HasPrefix(parts[1], "/") {
			return "", "", "", malformed()
		}
		source, target = parts[0], parts[1]
	case 3:
		source, target, mode = parts[0], parts[1], parts[2]
	default:
		return "", "", "", malformed()
	}
	if target == "" || (source == "" && len(parts) > 1) {
		return "", "", "", malformed()
	}
	target, err = checkTarget(target, raw)
	return source, target, mode, err
}

// parseBind reads one of HostConfig.Binds: source:target[:mode].
func parseBind(raw, driver string) (own.Mount, error) {
	var m own.Mount
	source, target, mode, err := splitBind(raw)
	if err != nil {
		return m, err
	}
	modes, err := parseModes(mode)
	if err != nil {
		return m, failure.Invalid("invalid mode: %s", mode)
	}
	m.Destination, m.Mode = target, mode
	m.ReadOnly = modes.readOnly
	if path.IsAbs(source) {
		if modes.noCopy {
			return m, failure.Invalid("invalid mode: %s", mode)
		}
		m.Type, m.Source, m.CreateSource = mount.TypeBind, path.Clean(source), true
		m.IDMap = modes.idMap
		m.Propagation = modes.propagation
		return m, nil
	}
	if modes.propagation != "" || modes.idMap != nil {
		return m, failure.Invalid("invalid mode: %s", mode)
	}
	if len(source) == 1 {
		return m, failure.Invalid(shortName, source)
	}
	if source != "" && !validVolumeName.MatchString(source) {
		return m, failure.Invalid("%q includes invalid characters for a local volume name, only %q are allowed. "+
			"If you intended to pass a host directory, use absolute path", source, "[a-zA-Z0-9][a-zA-Z0-9_.-]")
	}
	m.Type, m.Name, m.Driver, m.CopyUp, m.Anonymous = mount.TypeVolume, source, localDriver, !modes.noCopy, source == ""
	if m.Mode == "" {
		m.Mode = "z" // what Docker shows for a volume without a mode
	}
	if driver != "" {
		m.Driver = driver
	}
	return m, nil
}

// shortName is what is wrong with a name of one letter, with Docker's words.
const shortName = "create %s: volume name is too short, names should be at least two alphanumeric characters"

type bindModes struct {
	readOnly, noCopy bool
	propagation      mount.Propagation
	idMap            *own.IDMap
}

// parseModes reads a bind's comma list. Each kind of mode may occur once.
func parseModes(s string) (bindModes, error) {
	var b bindModes
	if s == "" {
		return b, nil
	}
	seen := map[string]bool{}
	for mode := range strings.SplitSeq(s, ",") {
		kind := ""
		switch mode {
		case "ro", "rw":
			kind, b.readOnly = "access", mode == "ro"
		case "z", "Z": // SELinux labels: nothing to do without SELinux
			kind = "label"
		case "nocopy":
			kind, b.noCopy = "copy", true
		case "consistent", "cached", "delegated":
			kind = "consistency"
		default:
			if ids, ok := strings.CutPrefix(mode, "idmap"); ok {
				var err error
				if b.idMap, err = parseIDMap(ids); err != nil {
					return b, err
				}
				kind = "idmap"
				break
			}
			if !slices.Contains(mount.Propagations, mount.Propagation(mode)) {
				return b, fmt.Errorf("unknown mode %q", mode)
			}
			kind, b.propagation = "propagation", mount.Propagation(mode)
		}
		if seen[kind] {
			return b, fmt.Errorf("%s is given twice", kind)
		}
		seen[kind] = true
	}
	return b, nil
}

// parseIDMap reads what follows idmap: nothing, which takes the owner of the source,
// or =UID.GID (a colon would end the mode).
func parseIDMap(s string) (*own.IDMap, error) {
	if s == "" {
		return &own.IDMap{Owner: true}, nil
	}
	user, group, ok := strings.Cut(strings.TrimPrefix(s, "="), ".")
	uid, uerr := strconv.ParseUint(user, 10, 31)
	gid, gerr := strconv.ParseUint(group, 10, 31)
	if !ok || uerr != nil || gerr != nil || s[0] != '=' {
		return nil, fmt.Errorf("idmap%s is not of the form idmap or idmap=UID.GID", s)
	}
	return &own.IDMap{UID: int(uid), GID: int(gid)}, nil
}

// parseMount reads one of HostConfig.Mounts.
func parseMount(r *mount.Mount) (own.Mount, volumeSpec, error) {
	m := own.Mount{Type: r.Type, ReadOnly: r.ReadOnly}
	var spec volumeSpec
	bad := func(format string, args ...any) (own.Mount, volumeSpec, error) {
		return m, spec, failure.Invalid("invalid mount config for type %q: %s", r.Type, fmt.Sprintf(format, args...))
	}
	if r.Target == "" {
		return bad("field Target must not be empty")
	}
	if strings.ContainsRune(r.Source, 0) {
		return bad("the source %q holds a zero byte", r.Source)
	}
	clean, err := checkTarget(r.Target, r.Target)
	if err != nil {
		return bad("%v", err)
	}
	m.Destination = clean
	for _, o := range []struct {
		set  bool
		of   mount.Type
		name string
	}{
		{r.BindOptions != nil, mount.TypeBind, "BindOptions"},
		{r.VolumeOptions != nil, mount.TypeVolume, "VolumeOptions"},
		{r.TmpfsOptions != nil, mount.TypeTmpfs, "TmpfsOptions"},
		{r.ImageOptions != nil, mount.TypeImage, "ImageOptions"},
		{r.ClusterOptions != nil, mount.TypeCluster, "ClusterOptions"},
	} {
		if o.set && o.of != r.Type {
			return bad("field %s must not be specified", o.name)
		}
	}
	if m.IDMap, err = consistency(r); err != nil {
		return bad("%v", err)
	}
	switch r.Type {
	case mount.TypeBind:
		err = planBind(&m, r)
	case mount.TypeVolume:
		spec, err = planVolume(&m, r)
	case mount.TypeTmpfs:
		err = planTmpfs(&m, r)
	case mount.TypeImage:
		err = planImage(&m, r)
	case typeFile:
		err = planFile(&m, r)
	default:
		return m, spec, failure.Invalid("invalid mount config for type %q: mount type unknown", r.Type)
	}
	if err != nil {
		return bad("%v", err)
	}
	return m, spec, nil
}

// consistency reads a field of which nothing else comes on Linux. As the API has no field for ids that are mapped, and
// clients let every value of this one through, it says that, too: idmap or idmap=UID.GID.
func consistency(r *mount.Mount) (*own.IDMap, error) {
	switch r.Consistency {
	case "", mount.ConsistencyDefault, mount.ConsistencyFull, mount.ConsistencyCached, mount.ConsistencyDelegated:
		return nil, nil
	}
	ids, ok := strings.CutPrefix(string(r.Consistency), "idmap")
	if !ok {
		return nil, fmt.Errorf("invalid consistency %q", r.Consistency)
	}
	if r.Type != mount.TypeBind {
		return nil, fmt.Errorf("idmap is for bind mounts")
	}
	return parseIDMap(ids)
}

func planBind(m *own.Mount, r *mount.Mount) error {
	if r.Source == "" {
		return fmt.Errorf("field Source must not be empty")
	}
	if !path.IsAbs(r.Source) {
		return fmt.Errorf("invalid mount path: '%s' mount path must be absolute", r.Source)
	}
	m.Source = path.Clean(r.Source)
	if o := r.BindOptions; o != nil {
		if o.Propagation != "" {
			if !slices.Contains(mount.Propagations, o.Propagation) {
				return fmt.Errorf("invalid propagation mode: %s", o.Propagation)
			}
			m.Propagation = o.Propagation
		}
		if o.ReadOnlyForceRecursive {
			if !r.ReadOnly {
				return fmt.Errorf("mode must be ReadOnly to set ReadOnlyForceRecursive")
			}
			if o.ReadOnlyNonRecursive {
				return fmt.Errorf("ReadOnlyForceRecursive and ReadOnlyNonRecursive conflict")
			}
		}
		if o.ReadOnlyNonRecursive && !r.ReadOnly {
			return fmt.Errorf("mode must be ReadOnly to set ReadOnlyNonRecursive")
		}
		m.NonRecursive, m.ReadOnlyNonRecursive, m.CreateSource = o.NonRecursive, o.ReadOnlyNonRecursive, o.CreateMountpoint
	}
	if !m.CreateSource {
		if _, err := os.Stat(m.Source); err != nil {
			if os.IsNotExist(err) {
				return fmt.Errorf("bind source path does not exist: %s", m.Source)
			}
			return fmt.Errorf("bind source path: %w", err)
		}
	}
	return nil
}

// boundByType is what to add where a volume is called by a path of the host: it is the
// type that makes a mount of it, and that of --mount is volume by default.
func boundByType(source string) string {
	if !path.IsAbs(source) {
		return ""
	}
	return "; it is one: say type=bind"
}

func planVolume(m *own.Mount, r *mount.Mount) (volumeSpec, error) {
	spec := volumeSpec{}
	m.Name, m.Driver, m.CopyUp, m.Anonymous = r.Source, localDriver, true, r.Source == ""
	m.Mode = "z"
	if r.Source == "" && r.ReadOnly {
		return spec, fmt.Errorf("must not set ReadOnly mode when using anonymous volumes")
	}
	if len(r.Source) == 1 && !path.IsAbs(r.Source) {
		return spec, fmt.Errorf(shortName, r.Source)
	}
	if r.Source != "" && !validVolumeName.MatchString(r.Source) {
		return spec, fmt.Errorf("%q includes invalid characters for a local volume name, only %q are allowed. "+
			"If you intended to pass a host directory, use absolute path"+boundByType(r.Source), r.Source, "[a-zA-Z0-9][a-zA-Z0-9_.-]")
	}
	o := r.VolumeOptions
	if o == nil {
		return spec, nil
	}
	m.CopyUp = !o.NoCopy
	if o.Subpath != "" {
		if path.IsAbs(o.Subpath) || !isLocalPath(o.Subpath) {
			return spec, fmt.Errorf("subpath must be a relative path within the volume")
		}
		m.Subpath, m.CopyUp = path.Clean(o.Subpath), false
	}
	spec.labels = o.Labels
	if d := o.DriverConfig; d != nil {
		spec.driver, spec.opts = d.Name, d.Options
		if d.Name != "" {
			m.Driver = d.Name
		}
	}
	return spec, nil
}

// planImage plans an image's files, which are never written to.
func planImage(m *own.Mount, r *mount.Mount) error {
	if r.Source == "" {
		return fmt.Errorf("field Source must not be empty")
	}
	m.Source, m.ReadOnly = r.Source, true
	if o := r.ImageOptions; o != nil && o.Subpath != "" {
		if path.IsAbs(o.Subpath) || !isLocalPath(o.Subpath) {
			return fmt.Errorf("subpath must be a relative path within the image")
		}
		m.Subpath = path.Clean(o.Subpath)
	}
	return nil
}

// isLocalPath says whether p, a clean relative path, stays below its start.
func isLocalPath(p string) bool {
	c := path.Clean(p)
	return c != ".." && !strings.HasPrefix(c, "../")
}

func planTmpfs(m *own.Mount, r *mount.Mount) error {
	if r.Source != "" {
		return fmt.Errorf("field Source must not be specified")
	}
	opts := []string{}
	if o := r.TmpfsOptions; o != nil {
		if o.SizeBytes < 0 {
			return fmt.Errorf("invalid tmpfs size %d", o.SizeBytes)
		}
		if o.SizeBytes > 0 {
			opts = append(opts, fmt.Sprintf("size=%d", o.SizeBytes))
		}
		if o.Mode != 0 {
			opts = append(opts, fmt.Sprintf("mode=%o", o.Mode&0o7777))
		}
		for _, kv := range o.Options {
			switch len(kv) {
			case 1, 2:
				opts = append(opts, strings.Join(kv, "="))
			default:
				return fmt.Errorf("invalid option array length in TmpfsOptions: %q", kv)
			}
		}
	}
	if err := checkTmpfsOptions(opts); err != nil {
		return err
	}
	m.Options = tmpfsDefaults(opts, r.ReadOnly)
	return nil
}

// parseTmpfs reads one of HostConfig.Tmpfs: options as in mount(8).
func parseTmpfs(dst, raw string) (own.Mount, error) {
	clean, err := checkTarget(dst, dst)
	if err != nil {
		return own.Mount{}, err
	}
	m := own.Mount{Type: mount.TypeTmpfs, Destination: clean, Mode: raw}
	var opts []string
	for o := range strings.SplitSeq(raw, ",") {
		switch {
		case raw == "":
			continue
		case slices.Contains(mount.Propagations, mount.Propagation(o)):
			m.Propagation = mount.Propagation(o)
			continue
		case o == "ro" || o == "rw":
			m.ReadOnly = o == "ro"
		}
		opts = append(opts, o)
	}
	if err := checkTmpfsOptions(opts); err != nil {
		return own.Mount{}, failure.Invalid("invalid tmpfs option for %s: %w", dst, err)
	}
	m.Options = tmpfsDefaults(opts, m.ReadOnly)
	return m, nil
}

// tmpfsDefaults puts Docker's noexec,nosuid,nodev before what was asked for,
// so that "exec" and the like take them back.
func tmpfsDefaults(opts []string, readOnly bool) []string {
	out := []string{"noexec", "nosuid", "nodev"}
	if readOnly && !slices.Contains(opts, "ro") {
		out = append(out, "ro")
	}
	return append(out, opts...)
}

func checkTmpfsOptions(opts []string) error {
	for _, o := range opts {
		key, value, hasValue := strings.Cut(o, "=")
		if strings.ContainsRune(o, 0) {
			return fmt.Errorf("%q holds a zero byte", o)
		}
		switch key {
		case "size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol":
			if !hasValue || value == "" {
				return fmt.Errorf("%q needs a value", key)
			}
		case "defaults", "ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "sync", "async", "dirsync",
			"atime", "noatime", "relatime", "norelatime", "strictatime", "nostrictatime", "diratime", "nodiratime", "nosymfollow":
			if hasValue {
				return fmt.Errorf("%q takes no value", key)
			}
		default:
			return fmt.Errorf("unknown option %q", o)
		}
	}
	return nil
}

// sortMounts puts mounts into the order of their targets; it is stable.
func sortMounts(ms []own.Mount) {
	slices.SortStableFunc(ms, func(a, b own.Mount) int { return higherFirst(a.Destination, b.Destination) })
}

// higherFirst is the order in which targets are mounted: what lies higher first, as with Docker, and so parents before
// children, even where a link of the image is what makes them that: /lib/modules is below /usr where /lib leads to /usr/lib.
func higherFirst(a, b string) int {
	return cmp.Or(cmp.Compare(strings.Count(a, "/"), strings.Count(b, "/")), strings.Compare(a, b))
}
