package build

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/frontend/subrequests"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/morikuni/aec"

	"github.com/cleatlabs/cleat/client/build/solve"
	"github.com/cleatlabs/cleat/client/term"
)

// warn lists the warnings of a build's checks.
func (a *app) warn(list []bkclient.VertexWarning, mode progressui.DisplayMode) {
	if len(list) == 0 || mode == progressui.QuietMode || mode == progressui.RawJSONMode {
		return
	}
	head := "1 warning found"
	if len(list) > 1 {
		head = fmt.Sprintf("%d warnings found", len(list))
	}
	if !a.globals.Debug {
		head += fmt.Sprintf(" (use %s --debug to expand)", a.program)
	}
	head += ":\n"
	if os.Getenv("NO_COLOR") == "" && term.NewOutput(a.stderr).IsTerminal() {
		head = aec.Apply(head, aec.YellowF)
	}
	_, _ = fmt.Fprint(a.stderr, "\n "+head)
	for _, w := range list {
		_, _ = fmt.Fprintf(a.stderr, " - %s\n", w.Short)
		if a.globals.Debug {
			a.warnAtLength(w)
		}
	}
}

func (a *app) warnAtLength(w bkclient.VertexWarning) {
	for _, d := range w.Detail {
		_, _ = fmt.Fprintf(a.stderr, "%s\n", d)
	}
	if w.URL != "" {
		_, _ = fmt.Fprintf(a.stderr, "More info: %s\n", w.URL)
	}
	if w.SourceInfo != nil && w.Range != nil {
		src := errdefs.Source{Info: w.SourceInfo, Ranges: w.Range}
		_ = src.Print(a.stderr)
	}
	_, _ = fmt.Fprintln(a.stderr)
}

// metadata is what --metadata-file says of a build.
func metadata(res *solve.Result, t *solve.Target, warnings []bkclient.VertexWarning) map[string]any {
	out := map[string]any{}
	for k, v := range res.Response {
		out[k] = unpacked(k, v)
	}
	if t.Call != nil {
		return out
	}
	out["buildx.build.ref"] = theBuilder + "/" + theBuilder + "/" + res.Ref
	if on, _ := strconv.ParseBool(os.Getenv("BUILDX_METADATA_WARNINGS")); on && len(warnings) > 0 {
		out["buildx.build.warnings"] = warnings
	}
	return out
}

// unpacked is a value of an exporter's response: objects come as JSON in base64.
func unpacked(key, value string) any {
	data := []byte(value)
	if key != "result.json" {
		var err error
		if data, err = base64.StdEncoding.DecodeString(value); err != nil {
			return value
		}
	}
	var object map[string]any
	var list []map[string]any
	if json.Unmarshal(data, &object) == nil && len(object) > 0 || json.Unmarshal(data, &list) == nil && len(list) > 0 {
		return json.RawMessage(data)
	}
	return value
}

func writeMetadata(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		err = writeFile(path, data)
	}
	if err != nil {
		return fmt.Errorf("writing metadata file: %w", err)
	}
	return nil
}

// answer prints what the frontend has answered to --call.
func (a *app) answer(t *solve.Target, res map[string]string) error {
	var err error
	switch t.Call.Name {
	case "outline":
		err = a.print(outline.PrintOutline, outline.SubrequestsOutlineDefinition.Version, t.Call.Format, res)
	case "targets":
		err = a.print(targets.PrintTargets, targets.SubrequestsTargetsDefinition.Version, t.Call.Format, res)
	case "subrequests.describe":
		err = a.print(subrequests.PrintDescribe, subrequests.SubrequestsDescribeDefinition.Version, t.Call.Format, res)
	case "lint":
		err = a.printLint(t, res)
	default:
		switch {
		case t.Call.Format == "json" && res["result.json"] != "":
			_, err = fmt.Fprintln(a.stdout, res["result.json"])
		case res["result.txt"] != "":
			_, err = fmt.Fprint(a.stdout, res["result.txt"])
		default:
			err = fmt.Errorf("the frontend has answered to %s nothing that can be printed", t.Call.Name)
		}
	}
	if err != nil {
		return err
	}
	if code, bad := strconv.Atoi(res["result.statuscode"]); bad == nil && code != 0 && !t.Call.IgnoreStatus {
		return &exitError{code: code}
	}
	return nil
}

// print writes an answer as JSON, as version's printer writes it, or, if it is of a newer
// version, as the frontend has written it.
func (a *app) print(printer func([]byte, io.Writer) error, version, format string, res map[string]string) error {
	if format == "json" {
		_, err := fmt.Fprintln(a.stdout, res["result.json"])
		return err
	}
	if newer(res["version"], version) && res["result.txt"] != "" {
		_, err := fmt.Fprint(a.stdout, res["result.txt"])
		return err
	}
	return printer([]byte(res["result.json"]), a.stdout)
}

// newer compares versions of dots and numbers.
func newer(a, b string) bool {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range as {
		x, err := strconv.Atoi(as[i])
		if err != nil || i >= len(bs) {
			return err == nil && x > 0
		}
		if y, _ := strconv.Atoi(bs[i]); x != y {
			return x > y
		}
	}
	return false
}

func (a *app) printLint(t *solve.Target, res map[string]string) error {
	var found lint.LintResults
	if err := json.Unmarshal([]byte(res["result.json"]), &found); err != nil {
		return fmt.Errorf("the answer of the build checks cannot be read: %w", err)
	}
	people := t.Call.Format != "json"
	switch n := len(found.Warnings); {
	case !people || n == 0:
	case n == 1:
		_, _ = fmt.Fprintln(a.stdout, "Check complete, 1 warning has been found!")
	default:
		_, _ = fmt.Fprintf(a.stdout, "Check complete, %d warnings have been found!\n", n)
	}
	where := func(info *pb.SourceInfo) *pb.SourceInfo {
		if info != nil && t.Dockerfile != "" && t.Dockerfile != "-" {
			info = info.CloneVT()
			info.Filename = t.Dockerfile
		}
		return info
	}
	err := a.print(func(_ []byte, w io.Writer) error { return found.PrintTo(w, where) }, lint.SubrequestLintDefinition.Version, t.Call.Format, res)
	if err != nil {
		return err
	}
	if found.Error != nil {
		var b strings.Builder
		if people && len(found.Warnings) > 0 {
			_, _ = fmt.Fprintln(a.stdout)
		}
		found.PrintErrorTo(&b, where)
		return errors.New(b.String())
	}
	if people && len(found.Warnings) == 0 {
		_, _ = fmt.Fprintln(a.stdout, "Check complete, no warnings found.")
	}
	return nil
}
