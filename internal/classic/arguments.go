package classic

import (
	"maps"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// argPrefix begins the names of build arguments among the frontend's attributes.
const argPrefix = "build-arg:"

// expandBases puts the values of build arguments into what FROM names, as the frontend
// will: only then is it known which stages stand on which. attrs are the frontend's
// attributes. A name that cannot be expanded stays: the frontend says what is wrong with
// it, and where.
func expandBases(stages []instructions.Stage, declared []instructions.ArgCommand, attrs map[string]string, escape rune) {
	values := platformArgs(attrs["platform"])
	lex := shell.NewLex(escape)
	expand := func(word string) string {
		env := make([]string, 0, len(values))
		for _, name := range slices.Sorted(maps.Keys(values)) {
			env = append(env, name+"="+values[name])
		}
		if expanded, _, err := lex.ProcessWord(word, shell.EnvsFromSlice(env)); err == nil {
			return expanded
		}
		return word
	}
	for _, command := range declared {
		for _, arg := range command.Args {
			if given, ok := attrs[argPrefix+arg.Key]; ok {
				values[arg.Key] = given
			} else if arg.Value != nil {
				values[arg.Key] = expand(*arg.Value)
			}
		}
	}
	for i := range stages {
		if strings.Contains(stages[i].BaseName, "$") {
			stages[i].BaseName = expand(stages[i].BaseName)
		}
	}
}

// platformArgs are the arguments that every FROM may use undeclared.
// https://docs.docker.com/reference/dockerfile/#automatic-platform-args-in-the-global-scope
func platformArgs(target string) map[string]string {
	here := platforms.DefaultSpec()
	there, err := platforms.Parse(target)
	if err != nil {
		there = here // none is given, or the frontend refuses it
	}
	return map[string]string{
		"BUILDPLATFORM": platforms.Format(here), "BUILDOS": here.OS, "BUILDARCH": here.Architecture, "BUILDVARIANT": here.Variant,
		"TARGETPLATFORM": platforms.Format(there), "TARGETOS": there.OS, "TARGETARCH": there.Architecture, "TARGETVARIANT": there.Variant,
	}
}
