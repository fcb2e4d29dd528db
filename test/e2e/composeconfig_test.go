package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
	"go.yaml.in/yaml/v3"

	"github.com/cleatlabs/cleat/test/harness"
)

// configDifferences are the cases of the corpus in which `cleat compose config` does not
// print what docker compose v2.40.3 prints, by the arguments ("*" is all of them), with
// the reason.
var configDifferences = map[string]map[string]string{
	"environment-date":       {"*": "docker compose refuses a YAML date as a variable's value"},
	"interpolation-ulimits":  {"--no-interpolate": "docker compose cannot read a ulimit that is a variable"},
	"models":                 {"--format json": "docker compose leaves the models out of JSON"},
	"volume-label":           {"--no-interpolate": "create_host_path, which says nothing of a volume, stands beside its label for SELinux"},
	"pull-refresh":           {"": "docker compose drops pull_refresh_after", "--format json": "the same"},
	"networks":               {"": "docker compose drops the options of ipam", "--format json": "the same"},
	"services-args-env":      {"": "docker compose reads the environment files of services that were not asked for", "--format json": "the same", "--hash *": "the same"},
	"env-files":              {"--hash *": "with an environment file docker compose prints another hash than its containers have; ours is that of the containers"},
	"error-env-file":         {"--hash *": "the same"},
	"merge":                  {"--hash *": "the same"},
	"extends":                {"--hash *": "the same"},
	"extends-file":           {"--hash *": "the same"},
	"include":                {"--hash *": "the same"},
	"project-directory":      {"--hash *": "the same"},
	"label-file":             {"--hash *": "with a label file docker compose prints another hash than its containers have; ours is that of the containers"},
	"error-duplicate":        {"stderr": "the YAML library's words"},
	"error-yaml":             {"stderr": "the YAML library's words"},
	"error-container-names":  {"stderr": "which of the two services is named changes"},
	"error-undefined-secret": {"stderr": "which of the two is named changes"},
}

// configCase is a project of the corpus: a file, or a directory with a compose file and
// what it needs; `flags` and `arguments` hold what stands before and after `config`.
type configCase struct {
	name             string
	flags, arguments []string
}

// configs are the projects of the corpus, laid out below dir.
func configs(t *testing.T, dir string) []configCase {
	t.Helper()
	const corpus = "testdata/compose-config"
	entries, err := os.ReadDir(corpus)
	if err != nil {
		t.Fatal(err)
	}
	var cases []configCase
	for _, entry := range entries {
		c := configCase{name: strings.TrimSuffix(entry.Name(), ".yaml")}
		home := filepath.Join(dir, c.name, "app")
		if entry.IsDir() {
			err = os.CopyFS(home, os.DirFS(filepath.Join(corpus, entry.Name())))
			c.flags, c.arguments = fields(t, filepath.Join(home, "flags")), fields(t, filepath.Join(home, "arguments"))
		} else if err = os.MkdirAll(home, 0o755); err == nil {
			var text []byte
			if text, err = os.ReadFile(filepath.Join(corpus, entry.Name())); err == nil {
				err = os.WriteFile(filepath.Join(home, "compose.yaml"), text, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
	}
	return cases
}

// fields are the words of a file, none if it is not there.
func fields(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

// said is what a run of `config` came to.
type said struct {
	stdout, stderr string
	code           int
}

// stamp is the time in a warning.
var stamp = regexp.MustCompile(`(?m)^time="[^"]*"`)

// place is where in a file an error comes from, and what to write there, which docker compose does not say.
var place = regexp.MustCompile(`(?m)^  --> .*:\d+\n *\d+ \| .*\n(?:Hint: .*\n)?`)

// config runs a program's `config` in a directory, with an environment of its own.
func config(t *testing.T, program, dir string, args ...string) said {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/root", "PWD=" + dir, "FROM_SHELL=from shell", "EMPTY_ONE=", "TWO=2", "DOCKER_HOST=unix:///nowhere"}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // the exit code says it
	lines := strings.Split(strings.TrimSpace(place.ReplaceAllString(stamp.ReplaceAllString(stderr.String(), ""), "")), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	slices.Sort(lines) // warnings come in any order, and some as often as a file is read
	return said{stdout.String(), strings.Join(slices.Compact(lines), "\n"), cmd.ProcessState.ExitCode()}
}

// `config` prints to the byte what docker compose prints, errors too.
func TestComposeConfigIsThatOfStock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cases := configs(t, dir)
	if len(cases) < 60 {
		t.Fatalf("the corpus has only %d projects", len(cases))
	}
	stock, ours := harness.StockCompose(t), harness.Binary(t, "cleat-compose")
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			variants := []string{"", "--format json", "--hash *", "--no-interpolate"}
			if strings.HasPrefix(c.name, "error-") {
				variants = []string{"", "--hash *"}
			}
			for _, v := range variants {
				c.compare(t, stock, ours, filepath.Join(dir, c.name, "app"), v)
			}
		})
	}
}

func (c configCase) compare(t *testing.T, stock, ours, home, variant string) {
	t.Helper()
	args := slices.Concat(c.flags, []string{"config"}, strings.Fields(variant), c.arguments)
	want, got := config(t, stock, home, args...), config(t, ours, home, args...)
	reasons := configDifferences[c.name]
	if reasons["stderr"] != "" {
		want.stderr, got.stderr = "", ""
	}
	reason, known := reasons[variant]
	if !known {
		reason, known = reasons["*"]
	}
	switch {
	case variant == "" && (want.code != 0) != strings.HasPrefix(c.name, "error-") && !known:
		t.Errorf("docker compose says %d: %s", want.code, want.stderr)
	case want == got && known && reason != "":
		t.Errorf("config %s: it is the same, though there is a difference by the table: %s", variant, reason)
	case want != got && !known:
		t.Errorf("config %s:\nstock %d:\n%s\n%s\ncleat %d:\n%s\n%s", variant, want.code, want.stdout, want.stderr, got.code, got.stdout, got.stderr)
	}
}

// newer are attributes that docker compose v2.40.3 does not know yet.
var newer = regexp.MustCompile(`^jobs|\.pre_start|\.umask$|\.use_service_name_alias$|\.no_cache_filter$`)

// Every attribute of the language stands in the corpus.
func TestComposeConfigCorpusIsWhole(t *testing.T) {
	t.Parallel()
	known, seen := map[string]bool{}, map[string]bool{}
	for _, path := range schema.AttributePaths() {
		known[string(path)] = true
	}
	var visit func(node any, path string)
	visit = func(node any, path string) {
		switch v := node.(type) {
		case map[string]any:
			for key, value := range v {
				at := strings.TrimPrefix(path+"."+key, ".")
				if !known[at] {
					at = strings.TrimPrefix(path+".*", ".")
				}
				seen[at] = true
				visit(value, at)
			}
		case []any:
			for _, part := range v {
				visit(part, path+".[]")
			}
		}
	}
	err := filepath.WalkDir("testdata/compose-config", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var document any
		if err := yaml.Unmarshal(text, &document); err == nil { // some are wrong on purpose
			visit(document, "")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for path := range known {
		if !seen[path] && !newer.MatchString(path) && !strings.HasSuffix(path, "*") && !strings.HasSuffix(path, "[]") {
			t.Errorf("no project of the corpus has %s", path)
		}
	}
}

// The questions that `config` answers, and what it can leave out.
func TestComposeConfigQuestions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stock, ours := harness.StockCompose(t), harness.Binary(t, "cleat-compose")
	for _, c := range configs(t, dir) {
		if !slices.Contains([]string{"merge", "env-files", "interpolation", "profiles-on", "depends", "build-all", "networks-external", "services-args", "variables"}, c.name) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			home := filepath.Join(dir, c.name, "app")
			for _, question := range []string{
				"--services", "--volumes", "--networks", "--images", "--profiles", "--models", "--environment", "--variables --format yaml", "--variables --format json", "--variables",
				"--no-normalize", "--no-path-resolution", "--no-consistency", "-q", "--services --no-interpolate", "--no-interpolate --format json", "--format toml",
			} {
				if strings.HasPrefix(question, "--variables") && c.name != "variables" {
					continue // which of a variable's occurrences counts changes with docker compose
				}
				args := slices.Concat(c.flags, []string{"config"}, strings.Fields(question), c.arguments)
				want, got := config(t, stock, home, args...), config(t, ours, home, args...)
				// Lists of names have no order of their own, those of docker compose none at all.
				if strings.HasPrefix(question, "--") && !strings.HasPrefix(question, "--no") {
					want.stdout, got.stdout = sorted(want.stdout), sorted(got.stdout)
				}
				if want != got {
					t.Errorf("config %s:\nstock %+v\ncleat %+v", question, want, got)
				}
			}
			out := filepath.Join(home, "written")
			if r := config(t, ours, home, slices.Concat(c.flags, []string{"config", "-o", out}, c.arguments)...); r.code != 0 || r.stdout != "" {
				t.Errorf("-o: %+v", r)
			}
			written, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if want := config(t, stock, home, slices.Concat(c.flags, []string{"config"}, c.arguments)...); string(written) != want.stdout {
				t.Errorf("written %s\nstock %s", written, want.stdout)
			}
		})
	}
}

func sorted(lines string) string {
	list := strings.Split(lines, "\n")
	slices.Sort(list)
	return strings.Join(list, "\n")
}

// Images are pinned to what their registry says that their names mean.
func TestComposeConfigDigests(t *testing.T) {
	e := engine(t, "busybox")
	image := harness.StartRegistry(t, "busybox").Addr + "/library/busybox"
	a := compose(t, e, map[string]string{"compose.yaml": fmt.Sprintf("services:\n  web: {image: \"%s\", command: \"echo $$X ${Y:-y}\"}\n", image)})
	for _, args := range [][]string{
		{"--resolve-image-digests"}, {"--lock-image-digests"}, {"--lock-image-digests", "--no-interpolate"}, {"--resolve-image-digests", "--no-interpolate"},
		{"--resolve-image-digests", "--format", "json"},
	} {
		args = append([]string{"config"}, args...)
		want, got := a.theirs(t).ok(t, args...), a.ok(t, args...)
		if want != got || !strings.Contains(got, image+":latest@sha256:") {
			t.Errorf("%v:\nstock %s\ncleat %s", args, want, got)
		}
	}
	if r := a.run(t, "-f", "none.yaml", "config"); r.Code == 0 || !strings.Contains(r.Stderr, "none.yaml") {
		t.Errorf("%+v", r)
	}
}

// `build --print` prints the bake file that docker compose prints, but in one order: what is in lists there comes from maps,
// and changes its order from call to call.
func TestComposeBuildPrintIsThatOfStock(t *testing.T) {
	t.Parallel()
	stock, ours := harness.StockCompose(t), harness.Binary(t, "cleat-compose")
	dir, compared := t.TempDir(), 0
	for _, c := range configs(t, dir) {
		home := filepath.Join(dir, c.name, "app")
		if exec.Command("grep", "-rq", "build:", home).Run() != nil || configDifferences[c.name]["*"] != "" {
			continue
		}
		compared++
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, flags := range []string{"", "--with-dependencies --build-arg TWO --ssh k=/key --push", "--check --no-cache --pull"} {
				args := slices.Concat(c.flags, []string{"build", "--print"}, strings.Fields(flags))
				want, got := config(t, stock, home, args...), config(t, ours, home, args...)
				if (want.code == 0) != (got.code == 0) || bakeInOrder(want.stdout) != bakeInOrder(got.stdout) {
					t.Errorf("%v: code %d, want %d\n%s\nwant\n%s\n%s", args, got.code, want.code, got.stdout, want.stdout, got.stderr)
				}
			}
		})
	}
	if compared < 10 {
		t.Errorf("the corpus has only %d projects with builds", compared)
	}
}

// bakeInOrder is a file of bake with its lists in order, and any other text as it is.
func bakeInOrder(text string) string {
	var file map[string]map[string]map[string]any
	if json.Unmarshal([]byte(text), &file) != nil {
		return text
	}
	for _, kind := range file {
		for _, one := range kind {
			for _, value := range one {
				if list, ok := value.([]any); ok {
					slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
				}
			}
		}
	}
	b, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return text
	}
	return string(b)
}
