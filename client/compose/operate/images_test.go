package operate

import (
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

func TestPullPolicy(t *testing.T) {
	for _, c := range []struct {
		policy, after, flag string
		want                string
		refresh             time.Duration
		err                 string
	}{
		{"", "", "", "missing", 0, ""},
		{"if_not_present", "", "", "if_not_present", 0, ""},
		{"always", "", "never", "never", 0, ""},
		{"daily", "", "policy", "refresh", 24 * time.Hour, ""},
		{"every_2h30m", "", "", "refresh", 150 * time.Minute, ""},
		{"refresh", "90m", "", "refresh", 90 * time.Minute, ""},
		{"refresh", "soon", "", "", 0, "pull_refresh_after"},
		{"always", "1h", "", "", 0, "pull_refresh_after"},
		{"sometimes", "", "", "", 0, "pull_policy"},
		{"", "", "sometimes", "", 0, "--pull"},
	} {
		s := types.ServiceConfig{Name: "a"}
		s.PullPolicy, s.PullRefreshAfter = c.policy, c.after
		policy, refresh, err := policyOf(s, c.flag)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%+v: %v", c, err)
			}
		} else if err != nil || policy != c.want || refresh != c.refresh {
			t.Errorf("%+v: %s %v %v", c, policy, refresh, err)
		}
	}
}
