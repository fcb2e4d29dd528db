package build_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	control "github.com/moby/buildkit/api/services/control"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cleatlabs/cleat/test/expect"
)

func (e *engine) DiskUsage(ctx context.Context, r *control.DiskUsageRequest) (*control.DiskUsageResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, e.bounded = ctx.Deadline()
	e.asked = append(e.asked, strings.Join(r.Filter, "|"))
	return &control.DiskUsageResponse{Record: e.usage}, nil
}

func (e *engine) Prune(r *control.PruneRequest, s control.Control_PruneServer) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pruned = append(e.pruned, r)
	for _, u := range e.usage {
		if err := s.Send(u); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) ListenBuildHistory(_ *control.BuildHistoryRequest, s control.Control_ListenBuildHistoryServer) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.records {
		if err := s.Send(r); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) UpdateBuildHistory(_ context.Context, r *control.UpdateBuildHistoryRequest) (*control.UpdateBuildHistoryResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, "delete "+r.Ref)
	return &control.UpdateBuildHistoryResponse{}, nil
}

func cached(id string, size int64, shared, used bool) *control.UsageRecord {
	at := timestamppb.New(time.Now().Add(-90 * time.Minute))
	return &control.UsageRecord{ID: id, Size: size, Shared: shared, InUse: used, CreatedAt: timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), LastUsedAt: at, UsageCount: 2, Description: "a step", RecordType: "regular"}
}

func TestDiskUsage(t *testing.T) {
	e := start(t)
	e.usage = []*control.UsageRecord{cached("first", 1000, true, false), cached("second", 2_000_000, false, true)}
	e.usage[1].Mutable = true
	expect.Golden(t, "testdata/golden/output/du.txt", cleat("", "builder", "du").stdout)
	expect.Golden(t, "testdata/golden/output/du-verbose.txt", cleat("", "buildx", "du", "--verbose").stdout)
	if r := cleat("", "buildx", "du", "--format", "{{.ID}} {{.Size}}"); r.stdout != "first 1kB\nsecond 2MB\n" {
		t.Errorf("%+v", r)
	}
	if r := cleat("", "buildx", "du", "--format", "json", "--filter", "type=regular", "--filter", "id=ab", "--filter", "until=1h"); r.code != 0 || e.asked[len(e.asked)-1] != "id~=ab,type==regular" {
		t.Errorf("%+v, asked %q", r, e.asked)
	} else {
		var m map[string]any
		if err := json.Unmarshal([]byte(strings.SplitN(r.stdout, "\n", 2)[0]), &m); err != nil || m["ID"] != "first" || m["Reclaimable"] != true {
			t.Errorf("%v, %v", m, err)
		}
	}
	for want, args := range map[string][]string{
		"cannot be used together": {"--verbose", "--format", "x"}, "expects a duration": {"--filter", "until=soon"}, "conflicting filters": {"--filter", "until=1h", "--filter", "unused-for=1h"},
		"invalid filter 'kind': must be one of description, id,": {"--filter", "kind=regular"},
		"expects only one value":                                 {"--filter", "id=a", "--filter", "id=b"}, "template parsing error": {"--format", "{{.Nonsuch}}"},
	} {
		if r := cleat("", append([]string{"buildx", "du"}, args...)...); r.code != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

// TestTimeoutIsForTheBuilder: --timeout bounds how long the engine may take to tell of itself, not how long it counts.
func TestTimeoutIsForTheBuilder(t *testing.T) {
	e := start(t)
	if r := cleat("", "buildx", "du", "--timeout", "1h"); r.code != 0 || e.bounded {
		t.Errorf("%+v, within a time: %t", r, e.bounded)
	}
	e.mute = true
	for _, args := range [][]string{{"du"}, {"prune", "-f"}} {
		if r := cleat("", append(args, "--timeout", "10ms")...); r.code == 0 || len(e.pruned) > 0 {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

func TestPrune(t *testing.T) {
	e := start(t)
	e.usage = []*control.UsageRecord{cached("first", 1000, true, false)}
	if r := cleat("n\n", "builder", "prune"); r.code != 0 || len(e.pruned) != 0 || !strings.Contains(r.stdout, "dangling build cache. Are you sure you want to continue? [y/N] ") {
		t.Errorf("%+v", r)
	}
	if r := cleat("y\n", "builder", "prune", "-a"); r.code != 0 || len(e.pruned) != 1 || !e.pruned[0].All || !strings.Contains(r.stdout, "all build cache") || !strings.HasSuffix(r.stdout, "Total:\t1kB\n") {
		t.Errorf("%+v", r)
	}
	r := cleat("", "buildx", "prune", "-f", "--keep-storage", "1kb", "--max-used-space", "2kb", "--min-free-space", "3kb", "--filter", "until=24h")
	if p := e.pruned[len(e.pruned)-1]; r.code != 0 || p.ReservedSpace != 1024 || p.MaxUsedSpace != 2048 || p.MinFreeSpace != 3072 || p.KeepDuration != int64(24*time.Hour) || p.All {
		t.Errorf("%+v, %v", r, p)
	}
	e.usage = []*control.UsageRecord{cached("empty", 0, false, false), cached("first", 1000, true, false)}
	if r := cleat("", "buildx", "prune", "-f"); strings.Count(r.stdout, "LAST ACCESSED") != 1 {
		t.Errorf("%+v", r)
	}
	if r := cleat("", "buildx", "prune", "-f", "--verbose"); r.code != 0 || !strings.Contains(r.stdout, "ID:           first\n") {
		t.Errorf("%+v", r)
	}
}

func TestTheOneBuilder(t *testing.T) {
	e := start(t)
	e.labels["a"] = "b"
	expect.Golden(t, "testdata/golden/output/ls.txt", cleat("", "buildx", "ls").stdout)
	expect.Golden(t, "testdata/golden/output/inspect.txt", cleat("", "buildx", "inspect", "--bootstrap").stdout)
	for line, want := range map[string]string{
		"buildx use default": "", "buildx inspect default": "", "buildx use other": `no builder "other" found`, "buildx inspect other": `no builder "other" found`,
		"buildx create --name x --driver docker-container": "create is not supported", "buildx rm x": "rm is not supported", "buildx stop": "stop is not supported",
		"buildx history open": "history open is not supported", "buildx use": "requires 1 argument",
	} {
		if r := cleat("", strings.Fields(line)...); (r.code == 0) != (want == "") || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %+v", line, r)
		}
	}
}

func built(ref, name string, ago, took time.Duration, failed bool) *control.BuildHistoryEvent {
	begin := time.Now().Add(-ago)
	r := &control.BuildHistoryRecord{
		Ref: ref, CreatedAt: timestamppb.New(begin), CompletedAt: timestamppb.New(begin.Add(took)), NumTotalSteps: 4, NumCompletedSteps: 4, NumCachedSteps: 1,
		FrontendAttrs: map[string]string{"filename": "Dockerfile", "build-arg:A": "1"}, Exporters: []*control.Exporter{{Type: "moby", Attrs: map[string]string{"name": name}}},
	}
	if failed {
		r.Error = &spb.Status{Code: int32(codes.Unknown), Message: "broken"}
	}
	return &control.BuildHistoryEvent{Type: control.BuildHistoryEventType_COMPLETE, Record: r}
}

func TestHistory(t *testing.T) {
	e := start(t)
	if r := cleat("", "buildx", "history", "inspect"); r.code != 1 || !strings.Contains(r.stderr, "no records found") {
		t.Errorf("%+v", r)
	}
	e.records = []*control.BuildHistoryEvent{built("aaa1", "docker.io/library/old:latest", 3*time.Hour, 90*time.Second, false), built("aab2", "docker.io/library/new:1,x", time.Hour, 1500*time.Millisecond, true)}
	expect.Golden(t, "testdata/golden/output/history-ls.txt", cleat("", "buildx", "history", "ls").stdout)
	for line, want := range map[string]string{
		"--filter status=error": "aab2\n", "--filter status!=error": "aaa1\n", "--filter duration>10s": "aaa1\n", "--filter startedAt>2h": "aab2\n", "--filter ref=aa": "aab2\naaa1\n",
	} {
		if r := cleat("", append([]string{"buildx", "history", "ls", "--format", "{{.Ref}}"}, strings.Fields(line)...)...); r.stdout != want {
			t.Errorf("%s: %+v", line, r)
		}
	}
	for line, want := range map[string]string{"status>1": "compared by = or !=", "size=1": "choose ref", "status": "expected KEY=VALUE", "duration>long": "no duration"} {
		if r := cleat("", "buildx", "history", "ls", "--filter", line); r.code != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %+v", line, r)
		}
	}
	for ref, want := range map[string]string{"": "aab2", "aaa": "aaa1", "^1": "aaa1", "default/default/aaa1": "aaa1"} {
		if r := cleat("", "buildx", "history", "inspect", "--format", "{{.Ref}}", ref); r.stdout != want+"\n" {
			t.Errorf("%q: %+v", ref, r)
		}
	}
	if r := cleat("", "buildx", "history", "inspect"); !strings.Contains(r.stdout, "Error: broken") || !strings.Contains(r.stdout, "Build Steps: 4/4 (25% cached)") || !strings.Contains(r.stdout, "BUILD ARG") {
		t.Errorf("%+v", r)
	}
	for ref, want := range map[string]string{"aa": "the beginning of 2 records", "zzz": "no record found", "^7": "there is no build 7 builds ago", "^x": "invalid offset"} {
		if r := cleat("", "buildx", "history", "inspect", ref); r.code != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("%q: %+v", ref, r)
		}
	}
	if r := cleat("", "buildx", "history", "rm", "aaa", "aab2"); r.code != 0 || strings.Join(e.asked, ",") != "delete aaa1,delete aab2" {
		t.Errorf("%+v, %v", r, e.asked)
	}
	if r := cleat("", "buildx", "history", "rm", "--all"); r.code != 0 || len(e.asked) != 4 {
		t.Errorf("%+v, %v", r, e.asked)
	}
	if r := cleat("", "buildx", "history", "rm"); r.code != 1 {
		t.Errorf("%+v", r)
	}
}
