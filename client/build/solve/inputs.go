package solve

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/distribution/reference"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/ociindex"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/moby/buildkit/util/archiveutil"
	"github.com/moby/buildkit/util/gitutil"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
)

const (
	defaultDockerfile = "Dockerfile"
	// archivePeek is as much of a stream as tells whether it is an archive.
	archivePeek = 1024
	// maxDockerfile bounds a Dockerfile that is not in a directory, bytes.
	maxDockerfile = 16 << 20
)

// IsRemote says whether a context is a URL or a git repository, which the engine fetches.
func IsRemote(where string) bool {
	if strings.HasPrefix(where, "https://") || strings.HasPrefix(where, "http://") {
		return true
	}
	_, ok, _ := dfgitutil.ParseGitRef(where)
	return ok
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// addInputs makes the context, the Dockerfile and the named contexts part of what the
// engine is asked, and of what it can fetch from here.
func (t *Target) addInputs(so *bkclient.SolveOpt) error {
	dockerfileDir, err := t.addContext(so)
	if err != nil {
		return err
	}
	if err := t.addDockerfile(so, dockerfileDir); err != nil {
		return err
	}
	caps := map[string]bool{}
	if err := noteGitQuery(t.Context, "", caps); err != nil {
		return err
	}
	for name, where := range t.Contexts {
		caps["moby.buildkit.frontend.contexts+forward"] = true
		if err := addNamed(so, name, where, caps); err != nil {
			return err
		}
	}
	if len(t.Inputs) > 0 {
		caps["moby.buildkit.frontend.contexts+forward"] = true
	}
	t.addLinked(so)
	if len(caps) > 0 {
		var list []string
		for c := range caps {
			list = append(list, c)
		}
		slices.Sort(list)
		so.FrontendAttrs["frontend.caps"] = strings.Join(list, ",")
	}
	return nil
}

// addContext returns the directory that the Dockerfile is looked for in, if it is one here.
func (t *Target) addContext(so *bkclient.SolveOpt) (string, error) {
	switch {
	case t.Context == "":
		return "", errors.New(`please specify build context (e.g. "." for the current directory)`)
	case t.Context == "-":
		return "", t.addStdin(so)
	case isDir(t.Context):
		if err := addDir(so, "context", t.Context); err != nil {
			return "", err
		}
		so.SharedKey = sharedKey(t.Context)
		return t.Context, nil
	case IsRemote(t.Context):
		so.FrontendAttrs["context"] = t.Context
		return "", nil
	}
	return "", &ContextError{Path: t.Context}
}

// addStdin takes standard input as a context, if it is an archive, or as a Dockerfile.
func (t *Target) addStdin(so *bkclient.SolveOpt) error {
	if t.Dockerfile == "-" {
		return errors.New("invalid argument: can't use stdin for both build context and dockerfile")
	}
	in := bufio.NewReaderSize(t.Stdin, archivePeek)
	head, err := in.Peek(archivePeek)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("the context on standard input: %w", err)
	}
	if archiveutil.IsArchive(head) {
		up := uploadprovider.New()
		so.FrontendAttrs["context"] = up.Add(io.NopCloser(in))
		so.Session = append(so.Session, up)
		return nil
	}
	if t.Dockerfile != "" {
		return errors.New("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")
	}
	if len(head) == 0 {
		return errors.New("standard input is empty: with '-' it is a Dockerfile or a tar archive of the context")
	}
	so.LocalMounts["context"] = memory{}
	return t.readDockerfile(so, in)
}

// readDockerfile serves the text that r has as the Dockerfile.
func (t *Target) readDockerfile(so *bkclient.SolveOpt, r io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(r, maxDockerfile+1))
	if err != nil {
		return fmt.Errorf("the Dockerfile on standard input: %w", err)
	}
	if len(data) > maxDockerfile {
		return fmt.Errorf("the Dockerfile on standard input is larger than %d MiB", maxDockerfile>>20)
	}
	serveDockerfile(so, data)
	return nil
}

func serveDockerfile(so *bkclient.SolveOpt, data []byte) {
	so.LocalMounts["dockerfile"] = memory{name: defaultDockerfile, data: data}
	so.FrontendAttrs["dockerfilekey"] = "dockerfile"
	so.FrontendAttrs["filename"] = defaultDockerfile
}

// addDockerfile tells the engine where the Dockerfile is. contextDir is empty if the
// context is none of here.
func (t *Target) addDockerfile(so *bkclient.SolveOpt, contextDir string) error {
	if _, served := so.LocalMounts["dockerfile"]; served {
		return nil
	}
	switch {
	case t.DockerfileInline != "":
		serveDockerfile(so, []byte(t.DockerfileInline))
		return nil
	case t.Dockerfile == "-":
		return t.readDockerfile(so, t.Stdin)
	case strings.HasPrefix(t.Dockerfile, "https://"), strings.HasPrefix(t.Dockerfile, "http://"):
		return fmt.Errorf("a Dockerfile cannot be a URL (%s): fetch it and give it by '-f -', or build the repository that it is in", t.Dockerfile)
	}
	dir, name := contextDir, t.Dockerfile
	switch {
	case contextDir == "" && !filepath.IsAbs(name):
		// It is in the context, which the engine fetches.
		if name == "" {
			name = defaultDockerfile
		}
		so.FrontendAttrs["filename"] = name
		return nil
	case contextDir == "":
		so.FrontendAttrs["dockerfilekey"] = "dockerfile"
		fallthrough
	case name != "":
		dir, name = filepath.Dir(name), filepath.Base(name)
	default:
		name = defaultDockerfile
	}
	name, err := findDockerfile(dir, name)
	if err != nil {
		return err
	}
	so.FrontendAttrs["filename"] = name
	return addDir(so, "dockerfile", dir)
}

// findDockerfile is name in dir, in lower case if it is there only so. One that is not
// there is told of here, where its neighbours are known.
func findDockerfile(dir, name string) (string, error) {
	st, err := os.Stat(filepath.Join(dir, name))
	switch {
	case err == nil && st.IsDir():
		return "", fmt.Errorf("the Dockerfile %s is a directory: name the file in it by -f", filepath.Join(dir, name))
	case err == nil:
		return name, staysWithin(dir, name)
	case !errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("unable to prepare context: unable to read the Dockerfile: %w", err)
	}
	if name == defaultDockerfile {
		if _, err := os.Stat(filepath.Join(dir, strings.ToLower(name))); err == nil {
			return strings.ToLower(name), nil
		}
	}
	return "", &DockerfileError{Dir: dir, Name: name}
}

// staysWithin refuses a Dockerfile that is a link out of its directory: the engine sees no more than that, and would miss
// what is there.
func staysWithin(dir, name string) error {
	for at := name; ; {
		target, err := os.Readlink(filepath.Join(dir, at))
		if err != nil {
			return nil // no link
		}
		if filepath.IsAbs(target) || !filepath.IsLocal(filepath.Join(filepath.Dir(at), target)) {
			return fmt.Errorf("the Dockerfile %s is a link to %s, and only relative links within its directory are followed: name that file itself by -f",
				filepath.Join(dir, name), target)
		}
		at = filepath.Join(filepath.Dir(at), target)
	}
}

func addDir(so *bkclient.SolveOpt, name, dir string) error {
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		return fmt.Errorf("unable to prepare context: %w", err)
	}
	so.LocalMounts[name] = fs
	return nil
}

// sharedKey says under which name the engine keeps its copy of a directory, so that only
// what has changed is sent. It is the same for all builds of one directory of one machine.
func sharedKey(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	if id, err := os.ReadFile("/etc/machine-id"); err == nil {
		return dir + ":" + strings.TrimSpace(string(id))
	}
	host, _ := os.Hostname()
	return dir + ":" + host
}

// noteGitQuery says what the frontend must be able to do for a git URL with a query.
func noteGitQuery(where, suffix string, caps map[string]bool) error {
	if _, ok, _ := dfgitutil.ParseGitRef(where); !ok {
		return nil
	}
	u, err := gitutil.ParseURL(where)
	if err != nil {
		return nil //nolint:nilerr // a form without a scheme, which has no query
	}
	if len(u.Query) > 0 {
		caps["moby.buildkit.frontend.gitquerystring"+suffix] = true
	}
	return nil
}

// addNamed makes where a context that the Dockerfile can name.
func addNamed(so *bkclient.SolveOpt, name, where string, caps map[string]bool) error {
	key := "context:" + name
	switch {
	case isElsewhere(where):
		so.FrontendAttrs[key] = where
		return noteGitQuery(where, "+forward", caps)
	case strings.HasPrefix(where, layoutPrefix):
		return addLayout(so, name, where)
	}
	st, err := os.Stat(where)
	if err != nil {
		return fmt.Errorf("failed to get build context %s: %w", name, err)
	}
	if !st.IsDir() {
		return fmt.Errorf("failed to get build context %s: %s is not a directory; a named context is a directory, a URL, docker-image://IMAGE or oci-layout://DIRECTORY", name, where)
	}
	dir := name
	if name == "context" || name == "dockerfile" {
		dir = "_" + name // these names are taken
	}
	if err := addDir(so, dir, where); err != nil {
		return err
	}
	so.FrontendAttrs[key] = "local:" + dir
	so.FrontendAttrs["sharedkey:localdir:"+name] = sharedKey(where)
	return nil
}

// isElsewhere says whether a named context is none of this machine's files: a URL, an image or a result.
func isElsewhere(where string) bool {
	return IsRemote(where) || strings.HasPrefix(where, "docker-image://") || strings.HasPrefix(where, "target:") || strings.HasPrefix(where, "input:")
}

// layoutPrefix is before the directory of an image in OCI's layout.
const layoutPrefix = "oci-layout://"

// addLayout serves an image of an OCI layout directory.
func addLayout(so *bkclient.SolveOpt, name, where string) error {
	dir, tag, dgst, err := splitLayout(where)
	if err != nil {
		return err
	}
	if dgst == "" {
		if dgst, err = findInLayout(dir, tag); err != nil {
			return fmt.Errorf("build context %s: oci-layout reference %q could not be resolved: %w", name, where, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "index.json")); err != nil {
		return fmt.Errorf("build context %s: %s is no OCI layout: %w", name, dir, err)
	}
	store, err := local.NewStore(dir)
	if err != nil {
		return fmt.Errorf("build context %s: invalid store at %s: %w", name, dir, err)
	}
	id := identity.NewID()
	if so.OCIStores == nil {
		so.OCIStores = map[string]content.Store{}
	}
	so.OCIStores[id] = store
	ref := layoutPrefix + id
	if tag != "" {
		ref += ":" + tag
	}
	so.FrontendAttrs["context:"+name] = ref + "@" + dgst.String()
	return nil
}

func splitLayout(where string) (dir, tag string, dgst digest.Digest, err error) {
	dir = strings.TrimPrefix(where, layoutPrefix)
	if i := strings.LastIndex(dir, "@"); i >= 0 && reference.DigestRegexp.MatchString(dir[i+1:]) {
		if dgst, err = digest.Parse(dir[i+1:]); err != nil {
			return "", "", "", fmt.Errorf("invalid digest in %s: %w", where, err)
		}
		dir = dir[:i]
	}
	if i := strings.LastIndex(dir, ":"); i >= 0 && !strings.Contains(dir[i:], "/") {
		dir, tag = dir[:i], dir[i+1:]
	}
	if tag == "" && dgst == "" {
		tag = "latest"
	}
	return dir, tag, dgst, nil
}

// findInLayout finds an image by its tag, or the only one there is.
func findInLayout(dir, tag string) (digest.Digest, error) {
	idx := ociindex.NewStoreIndex(dir)
	desc, err := idx.Get(tag)
	if err == nil && desc == nil {
		desc, err = idx.GetSingle()
	}
	if err != nil {
		return "", err
	}
	if desc == nil {
		return "", fmt.Errorf("there is no image tagged %s, and more than one image", tag)
	}
	return desc.Digest, nil
}

// addLinked makes the results of other targets contexts.
func (t *Target) addLinked(so *bkclient.SolveOpt) {
	for name, in := range t.Inputs {
		if so.FrontendInputs == nil {
			so.FrontendInputs = map[string]llb.State{}
		}
		for platform, state := range in.States {
			id, key := "target:"+name, "context:"+name
			if platform != "" {
				id, key = id+"::"+platform, key+"::"+platform
			}
			so.FrontendInputs[id] = state
			so.FrontendAttrs[key] = "input:" + id
			if meta := in.Metadata[platform]; meta != "" {
				so.FrontendAttrs["input-metadata:"+id] = meta
			}
		}
	}
}
