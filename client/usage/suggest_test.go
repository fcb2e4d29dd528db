package usage

import (
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestSuggest(t *testing.T) {
	run := func(*cobra.Command, []string) {}
	root := &cobra.Command{Use: "cleat"}
	for _, name := range []string{"run", "rm", "ps", "start", "stats", "container", "compose"} {
		root.AddCommand(&cobra.Command{Use: name, Run: run})
	}
	hidden := &cobra.Command{Use: "secret-one", Run: run, Hidden: true}
	root.AddCommand(hidden)
	for word, want := range map[string]string{
		"rn": "'cleat rm' or 'cleat run'", "contaner": "'cleat container'", "statr": "'cleat start' or 'cleat stats'", "strat": "'cleat start'", "stts": "'cleat stats'",
		"up": "'cleat compose up'", "ls": "'cleat ps'", "secret-on": "", "desktop": "", "x": "", "": "",
	} {
		got := strings.TrimSuffix(strings.TrimPrefix(Suggest(root, word), "\n\nDid you mean "), "?")
		if got != want {
			t.Errorf("%q: suggested %q, want %q", word, got, want)
		}
	}
}

func TestSuggestFlag(t *testing.T) {
	for arg, want := range map[string]string{
		"--nmae": "'--name'", "--volum": "'--volume'", "--mout": "'--mount'", "-name": "'--name', with two dashes",
		"-name=x": "'--name', with two dashes", "-x": "", "-xy": "", "--nothing-like-it": "", "--secrt": "",
	} {
		cmd := &cobra.Command{Use: "run", Run: func(*cobra.Command, []string) {}, SilenceErrors: true, SilenceUsage: true}
		for _, name := range []string{"name", "volume", "mount", "secret"} {
			cmd.Flags().String(name, "", "")
		}
		_ = cmd.Flags().MarkHidden("secret")
		cmd.SetArgs([]string{arg})
		err := cmd.Execute()
		if err == nil {
			t.Fatalf("%s: taken", arg)
		}
		got := strings.TrimSuffix(strings.TrimPrefix(SuggestFlag(cmd, err), "\n\nDid you mean "), "?")
		if got != want {
			t.Errorf("%s (%v): suggested %q, want %q", arg, err, got, want)
		}
	}
	if got := SuggestFlag(&cobra.Command{}, errors.New("another error")); got != "" {
		t.Errorf("suggested %q for an error of another kind", got)
	}
}
