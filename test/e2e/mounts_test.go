package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// TestIDMap: what a container makes in a bind belongs to the owner of the directory
// on the host, and that one's files are the container's.
func TestIDMap(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{dir, filepath.Join(dir, "mine")} {
			if err := os.Chown(f, 1234, 1235); err != nil {
				t.Fatal(err)
			}
		}
		for i, c := range []struct{ user, mode, inside, outside string }{
			{"0:0", "idmap", "0:0", "1234:1235"},
			{"5:6", "idmap", "5:6", "1234:1235"},
			{"1234:1235", "rw,idmap", "1234:1235", "1234:1235"},
			{"0:0", "idmap=1234.1235", "0:0", "1234:1235"},
			{"0:0", "idmap=77.78,cached", "1234:1235", "77:78"}, // the file is somebody else's
		} {
			file := fmt.Sprintf("made-%d", i)
			got := e.OK(t, program, "run", "--rm", "-u", c.user, "--cap-add", "ALL", "-v", dir+":/m:"+c.mode, "busybox", "sh", "-c",
				"stat -c %u:%g /m/mine; touch /m/"+file+"; stat -c %u:%g /m/"+file)
			if want := c.inside + "\n" + c.user; got != want {
				if c.mode != "idmap=77.78,cached" || !strings.HasPrefix(got, c.inside) {
					t.Errorf("%+v inside: %q, want %q", c, got, want)
				}
			}
			st, err := os.Stat(filepath.Join(dir, file))
			if err != nil {
				if c.mode == "idmap=77.78,cached" {
					continue
				}
				t.Fatal(err)
			}
			if s := st.Sys().(*syscall.Stat_t); fmt.Sprintf("%d:%d", s.Uid, s.Gid) != c.outside {
				t.Errorf("%+v on the host: %d:%d", c, s.Uid, s.Gid)
			}
		}
		// --mount has it, too; docker's client has no key of this name, but one whose value it leaves to the engine.
		key := map[string]string{"docker": "consistency=idmap", "cleat": "idmap"}[program]
		e.OK(t, program, "run", "--rm", "-u", "5:6", "--mount", "type=bind,src="+dir+",dst=/m,"+key, "busybox", "touch", "/m/mounted-"+program)
		if st, err := os.Stat(filepath.Join(dir, "mounted-"+program)); err != nil {
			t.Error(err)
		} else if s := st.Sys().(*syscall.Stat_t); s.Uid != 1234 || s.Gid != 1235 {
			t.Errorf("--mount: on the host %d:%d", s.Uid, s.Gid)
		}
		for mount, want := range map[string]string{
			"type=bind,src=" + dir + ",dst=/m," + key + "=me":     "idmap=me is not of the form idmap or idmap=UID.GID",
			"type=bind,src=" + dir + ",dst=/m,consistency=odd":    `invalid consistency "odd"`,
			"type=volume,src=" + name(t) + ",dst=/m," + key:       "idmap is for bind mounts",
			"type=bind,src=" + dir + "/none,dst=/m," + key:        "bind source path does not exist",
			"type=bind,src=/proc,dst=/m," + key + "=1.1,readonly": "leave out idmap",
		} {
			if r := e.Do(t, program, "", "run", "--rm", "--mount", mount, "busybox", "true"); r.Code != 125 || !strings.Contains(r.Stderr, want) {
				t.Errorf("%s", r)
			}
		}
		if r := e.Do(t, program, "", "run", "--rm", "-v", "/proc:/m:idmap=1.1", "busybox", "true"); r.Code == 0 || !strings.Contains(r.Stderr, "leave out idmap") {
			t.Errorf("%s", r)
		}
		if r := e.Do(t, program, "", "run", "--rm", "-v", dir+":/m:idmap=me", "busybox", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "invalid mode: idmap=me") {
			t.Errorf("%s", r)
		}
	})
}

// TestBindRecursion: what is mounted below the source of a bind, and what is mounted there later, on either side.
func TestBindRecursion(t *testing.T) {
	e := engine(t, "busybox")
	dir := t.TempDir()
	mountAt := func(path string) {
		t.Helper()
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", path, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Unmount(path, syscall.MNT_DETACH) })
		if err := os.WriteFile(path+"/f", nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mountAt(dir)
	if err := syscall.Mount("", dir, "", syscall.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	mountAt(dir + "/inner")
	each(t, func(t *testing.T, program string) {
		for options, want := range map[string]string{
			"":                                 "f outer inner",
			"bind-recursive=enabled":           "f outer inner",
			"bind-recursive=disabled":          "outer",
			"readonly":                         "f",
			"readonly,bind-recursive=writable": "f inner",
			"readonly,bind-recursive=readonly,bind-propagation=rprivate": "f",
			"bind-recursive=disabled,readonly,bind-propagation=private":  "",
		} {
			got := e.OK(t, program, "run", "--rm", "--mount", strings.TrimSuffix("type=bind,src="+dir+",dst=/m,"+options, ","), "busybox", "sh", "-c",
				"echo $(ls /m/inner; touch /m/x 2>/dev/null && echo outer; touch /m/inner/x 2>/dev/null && echo inner; rm -f /m/x /m/inner/x 2>/dev/null)")
			if options == "bind-recursive=disabled" {
				got = strings.TrimSuffix(got, " inner") // the directory below the mount
			}
			if got != want {
				t.Errorf("%s: %q, want %q", options, got, want)
			}
		}
		n := name(t)
		remove(t, e, n, n+"-slave", n+"-private")
		for suffix, propagation := range map[string]string{"": "rshared", "-slave": "rslave", "-private": "rprivate"} {
			e.OK(t, program, "run", "-d", "--privileged", "--name", n+suffix, "--mount", "type=bind,src="+dir+",dst=/m,bind-propagation="+propagation, "busybox", "sleep", "600")
		}
		later := "later-" + program
		mountAt(filepath.Join(dir, later))
		for suffix, want := range map[string]string{"": "f", "-slave": "f", "-private": ""} {
			if got := e.OK(t, program, "exec", n+suffix, "ls", "/m/"+later); got != want {
				t.Errorf("mounted on the host later%s: %q", suffix, got)
			}
		}
		for suffix, want := range map[string]bool{"": true, "-slave": false} {
			inside := "inside" + suffix + program
			e.OK(t, program, "exec", n+suffix, "sh", "-c", "mkdir /m/"+inside+" && mount -t tmpfs t /m/"+inside+" && touch /m/"+inside+"/f")
			if _, err := os.Stat(filepath.Join(dir, inside, "f")); (err == nil) != want {
				t.Errorf("mounted inside%s: %v on the host", suffix, err)
			}
			t.Cleanup(func() { syscall.Unmount(filepath.Join(dir, inside), syscall.MNT_DETACH) })
		}
	})
	private := t.TempDir()
	mountAt(private)
	if err := syscall.Mount("", private, "", syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if r := e.Docker(t, "run", "--rm", "-v", private+":/m:rshared", "busybox", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "it is not a shared mount: make it one (mount --make-rshared "+private+"), or leave out rshared") {
		t.Errorf("%s", r)
	}
}

// TestVolumeSubpath: a part of a volume, which no link in the volume leads out of.
func TestVolumeSubpath(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		v := name(t)
		e.OK(t, program, "volume", "create", v)
		t.Cleanup(func() { e.OK(t, "cleat", "volume", "rm", v) })
		e.OK(t, program, "run", "--rm", "-v", v+":/v", "busybox", "sh", "-c",
			"mkdir -p /v/a/b; echo deep >/v/a/b/f; ln -s / /v/root; ln -s ../../.. /v/a/up; ln -s /a/b /v/inner; ln -s /etc/passwd /v/passwd")
		run := func(subpath string, args ...string) (string, string, int) {
			r := e.Do(t, program, "", append([]string{"run", "--rm", "--mount", "type=volume,src=" + v + ",dst=/m,volume-subpath=" + subpath, "busybox"}, args...)...)
			return r.Line(), r.Stderr, r.Code
		}
		for subpath, want := range map[string]string{"a/b": "f", "inner": "f", "a": "b up", "root": "a inner passwd root", "a/up": "a inner passwd root"} {
			if got, msg, _ := run(subpath, "sh", "-c", "echo $(ls /m)"); got != want {
				t.Errorf("%s: %q %s", subpath, got, msg)
			}
		}
		if got, msg, _ := run("a/b/f", "cat", "/m"); got != "deep" {
			t.Errorf("a file: %q %s", got, msg)
		}
		for subpath, want := range map[string]string{"../x": "subpath must be a relative path within the volume", "/a": "subpath must be", "none": "no such file", "passwd": "no such file"} {
			if _, msg, code := run(subpath, "true"); code == 0 || !strings.Contains(msg, want) {
				t.Errorf("%s: %d %s", subpath, code, msg)
			}
		}
		// cp of a container that does not run sees the same.
		n := v + "-stopped"
		e.OK(t, program, "create", "--name", n, "--mount", "type=volume,src="+v+",dst=/m,volume-subpath=a/b", "busybox")
		remove(t, e, n)
		if got := e.OK(t, program, "cp", n+":/m/f", "-"); !strings.Contains(got, "deep") {
			t.Errorf("%q", got)
		}
	})
}

// layered writes an image whose layers hold the named files, one each.
func layered(t *testing.T, ref string, layers ...string) string {
	t.Helper()
	pack := func(files map[string][]byte) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for name, content := range files {
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(content); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		return b.Bytes()
	}
	files, ids, paths := map[string][]byte{}, []string{}, []string{}
	for i, name := range layers {
		layer := pack(map[string][]byte{name: []byte(name)})
		path := fmt.Sprintf("%d.tar", i)
		files[path] = layer
		ids, paths = append(ids, fmt.Sprintf("sha256:%x", sha256.Sum256(layer))), append(paths, path)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{}, "rootfs": map[string]any{"type": "layers", "diff_ids": ids},
	})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{ref + ":latest"}, "Layers": paths}})
	if err != nil {
		t.Fatal(err)
	}
	files["config.json"], files["manifest.json"] = config, manifest
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(file, pack(files), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestImageMounts(t *testing.T) {
	e := engine(t, "busybox")
	n := name(t)
	remove(t, e, n)
	e.OK(t, "docker", "load", "-i", layered(t, "web", "etc/passwd", "etc/deeper/file", "top"))
	t.Cleanup(func() { e.OK(t, "cleat", "rmi", "-f", "web") })
	if got := e.OK(t, "docker", "run", "--rm", "--mount", "type=image,src=web,dst=/img", "busybox", "sh", "-c", "cat /img/etc/deeper/file /img/top; touch /img/x 2>&1 | grep -o 'Read-only'"); got != "etc/deeper/filetopRead-only" {
		t.Errorf("%q", got)
	}
	if got := e.OK(t, "docker", "run", "--rm", "--mount", "type=image,src=busybox,dst=/img,image-subpath=etc/passwd", "busybox", "sh", "-c", "cmp /img /etc/passwd && echo same"); got != "same" {
		t.Errorf("%q", got)
	}
	e.OK(t, "cleat", "create", "--name", n, "--mount", "type=image,src=web,dst=/img,image-subpath=etc", "busybox", "ls", "/img/passwd")
	if got := e.OK(t, "docker", "start", "-a", n); got != "/img/passwd" {
		t.Errorf("%q", got)
	}
	if got := e.OK(t, "docker", "inspect", "-f", "{{range .Mounts}}{{.Type}} {{.Source}} {{.Destination}} {{.RW}}{{end}}", n); got != "image web /img false" {
		t.Errorf("%q", got)
	}
	if got := e.OK(t, "docker", "cp", n+":/img/passwd", "-"); !strings.Contains(got, "etc/passwd") {
		t.Errorf("cp of a mounted image: %q", got)
	}
	for flags, want := range map[string]string{
		"type=image,src=nosuchimage,dst=/img":                     "No such image: nosuchimage",
		"type=image,src=web,dst=/img,image-subpath=../..":         "subpath must be a relative path within the image",
		"type=image,src=web,dst=/img,image-subpath=none":          "no such file",
		"type=image,src=web,dst=/img,volume-nocopy":               "cannot mix",
		"type=volume,src=x,dst=/img,image-subpath=a":              "cannot mix",
		"type=bind,src=/etc,dst=/m,bind-recursive=readonly":       "requires 'readonly'",
		"type=bind,src=/etc,dst=/m,bind-propagation=odd":          "invalid propagation mode: odd",
		"type=tmpfs,dst=/m,tmpfs-size=-1":                         "invalid",
		"type=volume,dst=/m,volume-driver=nosuch":                 `plugin "nosuch" not found`,
		"type=volume,src=y" + n + ",dst=/m,volume-opt=colour=red": `invalid option: "colour"`,
		"type=bind,src=/nosuch/dir,dst=/m":                        "bind source path does not exist: /nosuch/dir",
	} {
		if r := e.Cleat(t, "run", "--rm", "--mount", flags, "busybox", "true"); r.Code == 0 || !strings.Contains(r.Stderr, want) {
			t.Errorf("%s", r)
		}
	}
	// An image that a container has mounted is in use.
	if r := e.Docker(t, "rmi", "web"); r.Code == 0 || !strings.Contains(r.Stderr, "container "+e.OK(t, "docker", "inspect", "-f", "{{slice .Id 0 12}}", n)) {
		t.Errorf("%s", r)
	}
}

// TestMountsOfEveryKind: the flags, as docker's documentation has them, and what
// inspect says of them.
func TestMountsOfEveryKind(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n, dir := name(t), t.TempDir()
		remove(t, e, n, n+"-ro", n+"-from")
		e.OK(t, program, "create", "--name", n, "-v", dir+":/bind:ro,z", "-v", n+":/named", "-v", "/anonymous",
			"--mount", "type=volume,src="+n+"-two,dst=/two,volume-label=a=b,volume-nocopy", "--mount", "type=tmpfs,dst=/tmpfs,tmpfs-size=1m,tmpfs-mode=0700",
			"-v", dir+"/made:/made", "--tmpfs", "/run:size=64k,exec", "busybox", "sh", "-c",
			"stat -c %a /tmpfs; df -k /tmpfs | tail -1 | tr -s ' ' | cut -d' ' -f2; grep -c ' /run tmpfs rw,nosuid,nodev,relatime,size=64k' /proc/mounts; echo kept >/named/f; touch /bind/x 2>/dev/null || echo read-only")
		t.Cleanup(func() { e.OK(t, "cleat", "volume", "rm", n, n+"-two") })
		if got := e.OK(t, program, "start", "-a", n); got != "700\n1024\n1\nread-only" {
			t.Errorf("%q", got)
		}
		want := "/anonymous volume true\n/bind bind false\n/made bind true\n/named volume true\n/tmpfs tmpfs true\n/two volume true"
		if got := e.OK(t, program, "inspect", "-f", "{{range .Mounts}}{{.Destination}} {{.Type}} {{.RW}}\n{{end}}", n); got != want {
			t.Errorf("inspect: %q", got)
		}
		if got := e.OK(t, program, "volume", "inspect", "-f", "{{.Labels.a}}", n+"-two"); got != "b" {
			t.Errorf("label %q", got)
		}
		if program == "cleat" { // docker's client has to be newer
			e.OK(t, program, "run", "--rm", "--mount", "type=bind,src="+dir+"/created,dst=/a,bind-create-src", "busybox")
			if st, err := os.Stat(dir + "/created"); err != nil || !st.IsDir() {
				t.Errorf("bind-create-src: %v", err)
			}
		}
		// --volumes-from, with and without ro.
		if got := e.OK(t, program, "run", "--rm", "--volumes-from", n+":ro", "busybox", "sh", "-c", "cat /named/f; touch /named/g 2>/dev/null || echo read-only; ls -d /anonymous"); got != "kept\nread-only\n/anonymous" {
			t.Errorf("%q", got)
		}
		e.OK(t, program, "create", "--name", n+"-from", "--volumes-from", n, "busybox")
		e.OK(t, program, "rm", "-v", n+"-from")
		e.OK(t, program, "start", "-a", n) // its anonymous volume is still there
		anonymous := e.OK(t, program, "inspect", "-f", `{{range .Mounts}}{{if eq .Destination "/anonymous"}}{{.Name}}{{end}}{{end}}`, n)
		if r := e.Do(t, program, "", "volume", "rm", n); r.Code != 1 || !strings.Contains(r.Stderr, "remove "+n+": volume is in use - ["+e.OK(t, program, "inspect", "-f", "{{.Id}}", n)+"]") {
			t.Errorf("%s", r)
		}
		e.OK(t, program, "rm", "-v", n)
		if got := e.OK(t, program, "volume", "ls", "-q"); strings.Contains(got, anonymous) || !strings.Contains(got, n+"\n") {
			t.Errorf("rm -v: %q", got)
		}
		if got := e.OK(t, program, "run", "--rm", "-v", "./file/path/", "busybox", "grep", "-c", " /file/path ", "/proc/mounts"); got != "1" {
			t.Errorf("a volume without its first slash: %q", got)
		}
		for args, want := range map[string]string{
			"-v " + dir + ":/a -v " + n + ":/a/":                             "Duplicate mount point: /a",
			"--mount type=tmpfs,dst=/a --tmpfs /a":                           "Duplicate mount point: /a",
			"--tmpfs /a:size=lots":                                           "tmpfs option size=lots: invalid argument",
			"-v " + dir + ":/etc/passwd":                                     "not a directory: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type",
			"-v /etc/passwd:/etc":                                            "not a directory: Are you trying to mount a directory onto a file (or vice-versa)?",
			"-v " + dir + ":/":                                               "destination can't be '/'",
			"-v " + dir + ":/a:ro,rw":                                        "invalid mode: ro,rw",
			"--volumes-from nosuch":                                          "No such container: nosuch",
			"--volumes-from " + n + "-no:odd":                                "invalid volumes-from specification",
			"--volume-driver nosuch -v x" + n + ":/a":                        `plugin "nosuch" not found`,
			"--mount type=bind,src=" + dir + "/nosuch,dst=/a":                `invalid mount config for type "bind": bind source path does not exist: ` + dir + "/nosuch",
			"--mount type=volume,src=a/b,dst=/a":                             "includes invalid characters for a local volume name",
			"--mount type=volume,src=" + n + ",dst=/a,volume-subpath=nosuch": "cannot access path nosuch of volume " + n,
			"-v " + dir + ":/proc/sys":                                       "cannot be mounted because it is inside /proc",
		} {
			if r := e.Do(t, program, "", append(append([]string{"run", "--rm"}, strings.Fields(args)...), "busybox", "true")...); r.Code == 0 || !strings.Contains(r.Stderr, want) {
				t.Errorf("%s", r)
			}
		}
	})
}

// TestVolumesFromReadOnly: what a container may not write to, another does not by taking its mounts.
func TestVolumesFromReadOnly(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n, dir := name(t), t.TempDir()
		remove(t, e, n)
		e.OK(t, program, "create", "--name", n, "-v", dir+":/closed:ro", "-v", "/open", "busybox")
		for _, mode := range []string{"", ":rw", ":z"} {
			got := e.OK(t, program, "run", "--rm", "--volumes-from", n+mode, "busybox", "sh", "-c", "touch /open/x && echo written; touch /closed/x 2>/dev/null || echo read-only")
			if got != "written\nread-only" {
				t.Errorf("%q: %q", mode, got)
			}
		}
	})
}

// TestVolumesFromSeveral: of several containers that have a mount at the same place the last one named counts.
func TestVolumesFromSeveral(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n+"-a", n+"-b")
		for _, which := range []string{"-a", "-b"} {
			e.OK(t, program, "run", "--name", n+which, "-v", "/d", "busybox", "sh", "-c", "echo "+which+" >/d/f")
		}
		if got := e.OK(t, program, "run", "--rm", "--volumes-from", n+"-a", "--volumes-from", n+"-b", "busybox", "cat", "/d/f"); got != "-b" {
			t.Errorf("%q", got)
		}
	})
}

// TestVolumesFromImages: a volume holds what the image has whose container it was made for, also if that was never
// started, and nothing of the image of who takes it.
func TestVolumesFromImages(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n, n+"-data", n+"-empty")
		e.OK(t, program, "run", "--name", n, "busybox", "sh", "-c", "mkdir /srv && echo mine >/srv/f")
		e.OK(t, program, "commit", n, n)
		t.Cleanup(func() { e.OK(t, "cleat", "rmi", "-f", n) })
		e.OK(t, program, "create", "--name", n+"-data", "-v", "/srv", n)
		if got := e.OK(t, program, "run", "--rm", "--volumes-from", n+"-data", "busybox", "cat", "/srv/f"); got != "mine" {
			t.Errorf("of a container that was never started: %q", got)
		}
		e.OK(t, program, "run", "--name", n+"-empty", "-v", "/srv", "busybox", "true")
		if got := e.OK(t, program, "run", "--rm", "--volumes-from", n+"-empty", n, "ls", "/srv"); got != "" {
			t.Errorf("the volume of another image's container: %q", got)
		}
	})
}

// TestVolumesOfContainersMadeFirst: who was made first gives a named volume what its image has, also if another that has the
// volume is started before it, or it never is.
func TestVolumesOfContainersMadeFirst(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		image := strings.ToLower(n)
		containers := []string{n, n + "-first", n + "-second", n + "-third"}
		remove(t, e, containers...)
		t.Cleanup(func() {
			e.Do(t, program, "", append([]string{"rm", "-f"}, containers...)...)
			e.OK(t, program, "volume", "rm", n+"-a", n+"-b", n+"-c")
			e.OK(t, "cleat", "rmi", "-f", image)
		})
		e.OK(t, program, "run", "--name", n, "busybox", "sh", "-c", "mkdir /srv && echo mine >/srv/f")
		e.OK(t, program, "commit", n, image)
		e.OK(t, program, "create", "--name", n+"-first", "-v", n+"-a:/srv", "-v", n+"-b:/srv/b:nocopy", image, "cat", "/srv/f")
		e.OK(t, program, "create", "--name", n+"-second", "-v", n+"-a:/etc", "-v", n+"-b:/etc/b", "busybox", "ls", "/etc")
		if got := e.OK(t, program, "start", "-a", n+"-second"); got != "b\nf\nhostname\nhosts\nresolv.conf" {
			t.Errorf("the volume of two: %q", got)
		}
		if got := e.OK(t, program, "start", "-a", n+"-first"); got != "mine" {
			t.Errorf("the first: %q", got)
		}
		e.OK(t, program, "create", "--name", n+"-third", "-v", n+"-c:/srv", image)
		e.OK(t, program, "rm", n+"-third")
		if got := e.OK(t, program, "run", "--rm", "-v", n+"-c:/x", "busybox", "cat", "/x/f"); got != "mine" {
			t.Errorf("of a container that was never started: %q", got)
		}
	})
}

// TestMountBelowALink: a mount that a link of the image leads into another one is in there.
func TestMountBelowALink(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n, dir := name(t), t.TempDir()
		remove(t, e, n)
		e.OK(t, program, "run", "--name", n, "busybox", "sh", "-c", "mkdir -p /usr/lib && ln -s /usr/lib /a && ln -s /srv/none /z")
		e.OK(t, program, "commit", n, strings.ToLower(n))
		t.Cleanup(func() { e.OK(t, "cleat", "rmi", "-f", strings.ToLower(n)) })
		if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, outer := range []string{"--tmpfs=/usr", "--volume=/usr", "--mount=type=bind,src=" + t.TempDir() + ",dst=/usr"} {
			if got := e.OK(t, program, "run", "--rm", "-v", dir+":/a/b", outer, strings.ToLower(n), "sh", "-c", "cd /usr/lib/b && ls"); got != "f" {
				t.Errorf("%s: %q", outer, got)
			}
		}
		for _, target := range []string{"/z/c", "/z"} { // the image has nothing where the link leads
			r := e.Do(t, program, "", "run", "--rm", "-v", dir+":"+target, "--tmpfs=/srv", strings.ToLower(n), "ls", "/srv/none"+strings.TrimPrefix(target, "/z"))
			if r.Stdout != "f\n" {
				t.Errorf("%s: %s", target, r)
			}
		}
	})
}

// TestTmpfsMode: a tmpfs has the mode of the directory that it covers, at each start.
func TestTmpfsMode(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n, n+"-made")
		e.OK(t, program, "run", "--name", n+"-made", "busybox", "mkdir", "-m", "2750", "/closed", "/other")
		e.OK(t, program, "commit", n+"-made", strings.ToLower(n))
		t.Cleanup(func() { e.OK(t, "cleat", "rmi", "-f", strings.ToLower(n)) })
		e.OK(t, program, "create", "--name", n, "--tmpfs", "/closed", "--tmpfs", "/other:mode=711", "--tmpfs", "/new/made", "--mount", "type=tmpfs,dst=/new/made/within",
			strings.ToLower(n), "stat", "-c", "%a", "/closed", "/other", "/new", "/new/made", "/new/made/within")
		for range 2 {
			if got := e.OK(t, program, "start", "-a", n); got != "2750\n711\n755\n1777\n1777" {
				t.Errorf("%q", got)
			}
		}
	})
}

func TestVolumeExportAndImport(t *testing.T) {
	e := engine(t, "busybox")
	n, dir := name(t), t.TempDir()
	remove(t, e, n)
	e.OK(t, "docker", "run", "--rm", "-v", n+":/d", "busybox", "sh", "-c",
		"echo content >/d/f; ln /d/f /d/hard; ln -s f /d/soft; mkfifo /d/pipe; truncate -s 1g /d/sparse; mkdir /d/.wh.odd; chown -R 12:34 /d/f; chown 7:8 /d; chmod 1711 /d")
	state := func(volume string) string {
		return e.OK(t, "docker", "run", "--rm", "-v", volume+":/d", "busybox", "sh", "-c",
			"cd /d; stat -c '%n %a %u:%g %h %F %s' . .wh.odd f hard soft pipe sparse; readlink soft; cat hard; du -k sparse | cut -f1")
	}
	file := filepath.Join(dir, "v.tar")
	e.OK(t, "cleat", "volume", "export", "-o", file, n)
	if st, err := os.Stat(file); err != nil || st.Size() > 10<<20 {
		t.Errorf("the holes are in the archive: %v %v", st.Size(), err)
	}
	if got := e.OK(t, "cleat", "volume", "import", "--label", "a=b", n+"-2", file); got != n+"-2" {
		t.Errorf("%q", got)
	}
	if got, want := state(n+"-2"), state(n); got != want {
		t.Errorf("imported:\n%s\nexported:\n%s", got, want)
	}
	// Through a pipe, while somebody writes; and what tar itself makes of a volume.
	e.OK(t, "docker", "run", "-d", "--name", n, "-v", n+":/d", "busybox", "sh", "-c", pairWriter)
	cmd := e.Command(t, "cleat", "volume", "export", n)
	out, err := cmd.Output()
	if err != nil || len(out) < 1024 {
		t.Fatal(len(out), err)
	}
	if r := e.Do(t, "cleat", string(out), "volume", "import", n+"-3", "-"); r.Code != 0 {
		t.Errorf("%s", r)
	}
	for args, want := range map[string]string{
		"volume import " + n + " " + file:                    "a volume of this name exists already",
		"volume import " + n + "-4 /etc/passwd":              "the archive is damaged or not a tar archive",
		"volume import " + n + "-4 /dev/null":                "the archive is empty",
		"volume export none":                                 "get none: no such volume",
		"volume export --snapshot none " + n:                 "has no snapshot none",
		"volume export -o " + dir + "/no/such/dir/file " + n: "no such file",
		"volume import a/b " + file:                          "includes invalid characters",
	} {
		if r := e.Cleat(t, strings.Fields(args)...); r.Code != 1 || !strings.Contains(r.Stderr, want) {
			t.Errorf("%s", r)
		}
	}
	if got := e.OK(t, "docker", "volume", "ls", "-q", "--filter", "name="+n); got != n+"\n"+n+"-2\n"+n+"-3" {
		t.Errorf("%q", got)
	}
	e.OK(t, "docker", "rm", "-f", n)
	e.OK(t, "docker", "volume", "rm", n, n+"-2", n+"-3")
}
