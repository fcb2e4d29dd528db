package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every variable COMPOSE_… that docker compose reads has its effect, from the environment and from the project's .env,
// and DOCKER_DEFAULT_PLATFORM has; TestComposeMenu has COMPOSE_MENU. What stands in the environment wins.
func TestComposeVariables(t *testing.T) {
	e := engine(t, "busybox")
	files := map[string]string{
		"compose.yaml": "services:\n  web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}\n  extra: {image: busybox, profiles: [more]}\n",
		"other.yaml":   "services: {other: {image: busybox}}\n", "third.yaml": "services: {third: {image: busybox}}\n",
		"vars": "FROM=vars\n", "uses.yaml": "services: {web: {image: busybox, environment: {FROM: \"${FROM-nowhere}\"}}}\n",
		"empty/none": "",
	}
	a := compose(t, e, files)
	stock := a.theirs(t).program
	a.ok(t, "-f", "other.yaml", "create") // an orphan of the others
	for _, c := range []struct {
		name, value string
		args        []string
		says        string // on one of both streams
		osOnly      bool   // it says where .env is, or whether
		plain       bool   // stock has the effect from there, too
	}{
		{name: "COMPOSE_PROJECT_NAME", value: "named", args: []string{"config"}, says: "name: named", plain: true},
		{name: "COMPOSE_FILE", value: "other.yaml", args: []string{"config", "--services"}, says: "other", plain: true},
		{name: "COMPOSE_FILE", value: "other.yaml:third.yaml", args: []string{"config", "--services"}, says: "third", plain: true},
		{name: "COMPOSE_PROFILES", value: "more", args: []string{"config", "--services"}, says: "extra", plain: true},
		{name: "COMPOSE_ENV_FILES", value: "vars", args: []string{"-f", "uses.yaml", "config"}, says: "FROM: vars", osOnly: true, plain: true},
		{name: "COMPOSE_DISABLE_ENV_FILE", value: "1", args: []string{"-f", "uses.yaml", "config"}, says: "FROM: nowhere", osOnly: true, plain: true},
		{name: "COMPOSE_COMPATIBILITY", value: "1", args: []string{"--dry-run", "create"}, says: "_web_1", plain: true},
		{name: "COMPOSE_PARALLEL_LIMIT", value: "few", args: []string{"ps"}, says: `must be an integer (found: "few")`, plain: true},
		{name: "COMPOSE_ANSI", value: "odd", args: []string{"ps"}, says: `unsupported --ansi value "odd"`},
		{name: "COMPOSE_PROGRESS", value: "json", args: []string{"--dry-run", "create"}, says: `"dry-run":true`},
		{name: "COMPOSE_STATUS_STDOUT", value: "1", args: []string{"--dry-run", "create"}, says: "Creating"},
		{name: "COMPOSE_IGNORE_ORPHANS", value: "1", args: []string{"up", "-d", "--remove-orphans"}, says: "cannot combine COMPOSE_IGNORE_ORPHANS and --remove-orphans", plain: true},
		{name: "COMPOSE_REMOVE_ORPHANS", value: "1", args: []string{"--dry-run", "down"}, says: "-other-1  Removed"},
		{name: "DOCKER_DEFAULT_PLATFORM", value: "neither/nor/this/or/that", args: []string{"create"}, says: "neither/nor/this/or/that", plain: true},
	} {
		for _, from := range []string{"environment", ".env"} {
			if c.osOnly && from == ".env" {
				continue
			}
			a.env = nil
			dotenv(t, a, "")
			if from == "environment" {
				a.env = []string{c.name + "=" + c.value}
			} else {
				dotenv(t, a, c.name+"="+c.value+"\n")
			}
			// Not with the -p of the others: the name may be what is asked for.
			programs := map[string][]string{"cleat": {"cleat", "compose"}}
			if c.plain {
				programs["stock"] = []string{stock}
			}
			for who, line := range programs {
				if c.name != "COMPOSE_PROJECT_NAME" {
					line = append(line, "-p", a.name)
				}
				run := e.Command(t, line[0], append(line[1:], c.args...)...)
				run.Dir, run.Env = a.dir, append(run.Env, a.env...)
				out, _ := run.CombinedOutput() // some are to fail
				if !strings.Contains(strings.ToLower(string(out)), strings.ToLower(c.says)) {
					t.Errorf("%s: %s of the %s: want %q:\n%s", who, c.name, from, c.says, out)
				}
			}
		}
	}
	dotenv(t, a, "COMPOSE_PROJECT_NAME=of_the_file\n")
	a.env = []string{"COMPOSE_PROJECT_NAME=of_the_environment"}
	run := e.Command(t, "cleat", "compose", "config")
	run.Dir, run.Env = a.dir, append(run.Env, a.env...)
	if out, err := run.CombinedOutput(); err != nil || !strings.Contains(string(out), "name: of_the_environment") {
		t.Errorf("%v: %s", err, out)
	}
	// A platform that there is.
	a.env = nil
	dotenv(t, a, "DOCKER_DEFAULT_PLATFORM=linux/amd64\n")
	a.ok(t, "create")
}

func dotenv(t *testing.T, a *application, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, ".env"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
