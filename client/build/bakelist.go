package build

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/cleatlabs/cleat/client/term"
)

// BakeListed is a group or a target as `bake --list` shows it. A group's description has its targets' names.
type BakeListed struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Group       bool   `json:"group,omitempty"`
}

// BakeVariable is a variable as `bake --list` shows it. One without a value is null.
type BakeVariable struct {
	Name        string  `json:"name"`
	Description string  `json:"description,omitempty"`
	Type        string  `json:"type,omitempty"`
	Value       *string `json:"value,omitempty"`
}

// listBake shows what bake files have, by the words of --list.
func (a *app) listBake(plan *BakePlan, how string) error {
	what, format, _ := strings.Cut(how, ",")
	format = strings.TrimPrefix(format, "format=")
	what = strings.TrimPrefix(what, "type=")
	var header string
	var rows []string
	var list any
	switch what {
	case "targets":
		header = "TARGET\tDESCRIPTION"
		targets := slices.DeleteFunc(plan.Listed, func(l BakeListed) bool { return strings.HasPrefix(l.Name, "_") }) // private ones
		slices.SortFunc(targets, func(x, y BakeListed) int { return cmp.Compare(x.Name, y.Name) })
		for _, l := range targets {
			rows = append(rows, l.Name+"\t"+l.Description)
		}
		list = targets
	case "variables":
		header = "VARIABLE\tTYPE\tVALUE\tDESCRIPTION"
		slices.SortFunc(plan.Variables, func(x, y BakeVariable) int { return cmp.Compare(x.Name, y.Name) })
		for _, v := range plan.Variables {
			value := "<null>"
			if v.Value != nil {
				value = *v.Value
			}
			rows = append(rows, strings.Join([]string{v.Name, v.Type, value, v.Description}, "\t"))
		}
		list = plan.Variables
	default:
		return fmt.Errorf("invalid list type %q: choose targets or variables", what)
	}
	switch format {
	case jsonFormat:
		data, err := json.MarshalIndent(list, "", "  ")
		if err == nil {
			_, err = fmt.Fprintf(a.stdout, "%s\n", data)
		}
		return err
	case "", "table":
	default:
		return fmt.Errorf("invalid list format %q: choose table or json", format)
	}
	t := term.NewTable(a.stdout, 10, 3)
	for _, line := range append([]string{header}, rows...) {
		_, _ = fmt.Fprintln(t, line)
	}
	return t.Flush()
}
