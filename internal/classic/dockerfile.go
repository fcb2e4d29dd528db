package classic

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/cleatlabs/cleat/internal/build"
	"github.com/cleatlabs/cleat/internal/failure"
)

// maxDockerfile is more than any Dockerfile that was written by hand or program.
const maxDockerfile = 16 << 20

// step is one line that the output counts: an instruction of a stage that is built.
type step struct {
	text  string
	stage string // the stage's name as BuildKit writes it in its vertices
	// place is the number of the step within the stage by BuildKit's count, which has
	// FROM and the instructions that change files; 0 for the others.
	place int
}

// findDockerfile reads the Dockerfile of a context.
func findDockerfile(s *sources, name string) ([]byte, error) {
	data, err := s.read(name, maxDockerfile)
	if errors.Is(err, fs.ErrNotExist) && name == "Dockerfile" {
		// As Docker: a lower-case name serves where there is no other.
		data, err = s.read("dockerfile", maxDockerfile)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("Cannot locate specified Dockerfile: %s", name) //nolint:staticcheck // Docker's words, which programs match
	}
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, failure.Invalid("the Dockerfile (%s) cannot be empty", name)
	}
	return data, nil
}

// plan lists the steps of the target and of the stages that it needs, in the order of the
// Dockerfile. A stage that nothing needs is not built and not counted. attrs are the
// attributes that the frontend gets.
func plan(dockerfile []byte, target string, attrs map[string]string) ([]step, error) {
	given := map[string]string{}
	for name, value := range attrs {
		if arg, ok := strings.CutPrefix(name, argPrefix); ok {
			given[arg] = value
		}
	}
	if err := build.CheckExpansion(dockerfile, given); err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(bytes.NewReader(dockerfile))
	if err != nil {
		return nil, parseFailure(err)
	}
	stages, args, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return nil, parseFailure(err)
	}
	wanted, err := findStage(stages, target)
	if err != nil {
		return nil, err
	}
	expandBases(stages, args, attrs, parsed.EscapeToken)
	needed := neededStages(stages, wanted)
	var steps []step
	for _, a := range args {
		steps = append(steps, step{text: a.String()})
	}
	for i, s := range stages {
		if needed[i] {
			steps = append(steps, stageSteps(stages, i, s)...)
		}
	}
	return steps, nil
}

func parseFailure(err error) error {
	return failure.Invalid("%s", "dockerfile parse error "+strings.TrimPrefix(err.Error(), "dockerfile parse error "))
}

func stageSteps(stages []instructions.Stage, i int, s instructions.Stage) []step {
	name := s.Name
	if name == "" {
		name = "stage-" + strconv.Itoa(i)
	}
	place := 0
	steps := []step{{text: s.SourceCode, stage: name}}
	if s.BaseName != "scratch" && earlierStage(stages[:i], s.BaseName) < 0 {
		place++
		steps[0].place = place
	}
	for _, c := range s.Commands {
		next := step{text: fmt.Sprint(c), stage: name}
		switch c.(type) {
		case *instructions.AddCommand, *instructions.CopyCommand, *instructions.RunCommand, *instructions.WorkdirCommand:
			place++
			next.place = place
		}
		steps = append(steps, next)
	}
	return steps
}

func findStage(stages []instructions.Stage, target string) (int, error) {
	if target == "" {
		return len(stages) - 1, nil
	}
	if i := earlierStage(stages, target); i >= 0 {
		return i, nil
	}
	var names []string
	for _, s := range stages {
		if s.Name != "" {
			names = append(names, s.Name)
		}
	}
	return 0, failure.Invalid("target stage %q could not be found: the Dockerfile's named stages are: %s", target, strings.Join(names, ", "))
}

// earlierStage finds a stage by name or number, the last one of the name; -1 if there is
// none.
func earlierStage(stages []instructions.Stage, name string) int {
	for i, s := range slices.Backward(stages) {
		if s.Name != "" && strings.EqualFold(s.Name, name) {
			return i
		}
	}
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < len(stages) {
		return n
	}
	return -1
}

// neededStages follows FROM, COPY --from and RUN --mount=from.
func neededStages(stages []instructions.Stage, wanted int) map[int]bool {
	needed := map[int]bool{}
	var visit func(int)
	visit = func(i int) {
		if i < 0 || needed[i] {
			return
		}
		needed[i] = true
		visit(earlierStage(stages[:i], stages[i].BaseName))
		for _, c := range stages[i].Commands {
			switch c := c.(type) {
			case *instructions.CopyCommand:
				if c.From != "" {
					visit(earlierStage(stages[:i], c.From))
				}
			case *instructions.RunCommand:
				for _, m := range instructions.GetMounts(c) {
					if m.From != "" {
						visit(earlierStage(stages[:i], m.From))
					}
				}
			}
		}
	}
	visit(wanted)
	return needed
}
