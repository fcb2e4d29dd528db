package solve

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bkclient "github.com/moby/buildkit/client"
)

const (
	oneCommit   = "0123456789abcdef0123456789abcdef01234567"
	otherCommit = "89abcdef0123456789abcdef0123456789abcdef"
)

func TestRepositoryOfAContext(t *testing.T) {
	const config = "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = https://user:secret@git.example/a/b.git\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n" +
		"[remote \"fork\"]\n\turl = git@fork.example:a/b.git\n[branch \"side\"]\n\tremote = fork\n\tmerge = refs/heads/side\n"
	plain := map[string]string{"vcs:revision": oneCommit, "vcs:source": "https://git.example/a/b.git", "vcs:localdir:context": ".", "vcs:localdir:dockerfile": "."}
	for _, c := range []struct {
		name    string
		files   map[string]string
		context string
		file    string
		env     map[string]string
		labels  map[string]string
		want    map[string]string
	}{
		{name: "none", files: map[string]string{"Dockerfile": ""}, want: map[string]string{}},
		{name: "a branch", files: map[string]string{".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": oneCommit + "\n", ".git/config": config}, want: plain},
		{name: "a commit", files: map[string]string{".git/HEAD": oneCommit + "\n", ".git/config": config}, want: plain},
		{name: "packed", files: map[string]string{
			".git/HEAD": "ref: refs/heads/main\n", ".git/packed-refs": "# pack-refs with: peeled\n" + otherCommit + " refs/heads/mainly\n" + oneCommit + " refs/heads/main\n^" + otherCommit + "\n", ".git/config": config,
		}, want: plain},
		{name: "a branch with a remote, in a directory", context: "sub/dir", file: "sub/other/File", files: map[string]string{
			".git/HEAD": "ref: refs/heads/side\n", ".git/refs/heads/side": otherCommit + "\n", ".git/config": config, "sub/dir/x": "", "sub/other/File": "",
		}, want: map[string]string{"vcs:revision": otherCommit, "vcs:source": "git@fork.example:a/b.git", "vcs:localdir:context": "sub/dir", "vcs:localdir:dockerfile": "sub/other"}},
		{name: "a linked working tree", context: "tree", files: map[string]string{
			"main/.git/worktrees/tree/HEAD": "ref: refs/heads/side\n", "main/.git/worktrees/tree/commondir": "../..\n", "main/.git/refs/heads/side": oneCommit + "\n",
			"main/.git/config": config, "tree/.git": "gitdir: ../main/.git/worktrees/tree\n", "tree/Dockerfile": "",
		}, want: map[string]string{"vcs:revision": oneCommit, "vcs:source": "git@fork.example:a/b.git", "vcs:localdir:context": ".", "vcs:localdir:dockerfile": "."}},
		{name: "no commit yet", files: map[string]string{".git/HEAD": "ref: refs/heads/main\n"}, want: map[string]string{"vcs:localdir:context": ".", "vcs:localdir:dockerfile": "."}},
		{name: "hostile", files: map[string]string{".git/HEAD": "ref: ../../etc/passwd\n", ".git/config": "[remote\nurl\n[[\"\n"}, want: map[string]string{"vcs:localdir:context": ".", "vcs:localdir:dockerfile": "."}},
		{name: "a password that is none of a URL", files: map[string]string{".git/HEAD": oneCommit + "\n", ".git/config": "[remote \"origin\"]\n\turl = https://user:100%secret@git.example/a.git\n"},
			want: map[string]string{"vcs:revision": oneCommit, "vcs:localdir:context": ".", "vcs:localdir:dockerfile": "."}},
		{name: "in circles", files: map[string]string{".git/HEAD": "ref: HEAD\n"}, want: map[string]string{"vcs:localdir:context": ".", "vcs:localdir:dockerfile": "."}},
		{name: "a file that says nothing", files: map[string]string{".git": "x"}, want: map[string]string{}},
		{name: "off", env: map[string]string{"BUILDX_GIT_INFO": "0"}, files: map[string]string{".git/HEAD": oneCommit + "\n"}, want: map[string]string{}},
		{name: "labels only", env: map[string]string{"BUILDX_GIT_INFO": "false", "BUILDX_GIT_LABELS": "full"}, labels: map[string]string{"org.opencontainers.image.source": "given"},
			files: map[string]string{".git/HEAD": oneCommit + "\n", ".git/config": config},
			want:  map[string]string{"label:org.opencontainers.image.revision": oneCommit, "label:com.docker.image.source.entrypoint": "Dockerfile"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, name := range []string{"BUILDX_GIT_INFO", "BUILDX_GIT_LABELS", "BUILDX_GIT_CHECK_DIRTY"} {
				t.Setenv(name, c.env[name])
			}
			dir := t.TempDir()
			for name, text := range c.files {
				path := filepath.Join(dir, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			target := &Target{Context: filepath.Join(dir, c.context), Labels: c.labels}
			if c.file != "" {
				target.Dockerfile = filepath.Join(dir, c.file)
			}
			so := &bkclient.SolveOpt{FrontendAttrs: map[string]string{}}
			if err := target.addRepository(so); err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(so.FrontendAttrs, c.want) {
				t.Errorf("%q, want %q", so.FrontendAttrs, c.want)
			}
		})
	}
}

func TestDirtyNeedsGit(t *testing.T) {
	t.Setenv("BUILDX_GIT_CHECK_DIRTY", "1")
	t.Setenv("PATH", t.TempDir())
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, ".git"), 0o755), os.WriteFile(filepath.Join(dir, ".git/HEAD"), []byte(oneCommit), 0o644)); err != nil {
		t.Fatal(err)
	}
	err := (&Target{Context: dir}).addRepository(&bkclient.SolveOpt{FrontendAttrs: map[string]string{}})
	if err == nil || !strings.Contains(err.Error(), "BUILDX_GIT_CHECK_DIRTY needs the program git") {
		t.Errorf("%v", err)
	}
}
