package usage

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// habits are words that users of other programs type for what a command here does.
var habits = map[string]string{
	"delete": "rm", "df": "system df", "down": "compose down", "list": "ps", "ls": "ps", "prune": "system prune",
	"remove": "rm", "shell": "exec -it", "up": "compose up",
}

// Suggest says which commands below cmd the user may have meant by a word that is none
// of them, as a paragraph to put behind the error; "" if nothing is near.
func Suggest(cmd *cobra.Command, word string) string {
	var names, lines []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	found := Nearest(word, names)
	if meant := habits[word]; meant != "" && !cmd.HasParent() {
		found = []string{meant}
	}
	for _, name := range found {
		lines = append(lines, "'"+cmd.CommandPath()+" "+name+"'")
	}
	if len(lines) == 0 {
		return ""
	}
	return "\n\nDid you mean " + strings.Join(lines, " or ") + "?"
}

// SuggestFlag says which flag of cmd the user may have meant by one that err says there
// is not, as a paragraph to put behind the error; "" if nothing is near.
func SuggestFlag(cmd *cobra.Command, err error) string {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return ""
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	if letters := unknown.GetSpecifiedShortnames(); letters != "" {
		// One dash is for flags of one letter: -name is -n, -a, -m and -e.
		if name, _, _ := strings.Cut(letters, "="); len(name) > 2 && slices.Contains(names, name) {
			return "\n\nDid you mean '--" + name + "', with two dashes?"
		}
		return ""
	}
	found := Nearest(unknown.GetSpecifiedName(), names)
	if len(found) == 0 {
		return ""
	}
	return "\n\nDid you mean '--" + strings.Join(found, "' or '--") + "'?"
}

// Nearest lists the words that take the fewest slips of the keyboard to become word, up
// to three of them, and none where that takes more slips than a third of its letters.
func Nearest(word string, words []string) []string {
	const most = 3
	best, found := max(1, len(word)/3), []string(nil)
	for _, w := range words {
		switch d := slips(word, w); {
		case d < best:
			best, found = d, []string{w}
		case d == best:
			found = append(found, w)
		}
	}
	if len(found) > most {
		return nil
	}
	slices.Sort(found)
	return found
}

// slips counts the letters that are missing, too many, wrong or swapped with the next.
func slips(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			wrong := 1
			if a[i-1] == b[j-1] {
				wrong = 0
			}
			n := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+wrong)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				n = min(n, rows[i-2][j-2]+1)
			}
			rows[i][j] = n
		}
	}
	return rows[len(a)][len(b)]
}
