package assemble

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/internal/build"
)

func TestBuilderSettings(t *testing.T) {
	for text, want := range map[string]struct {
		budget         build.Budget
		host, insecure bool
	}{
		`{}`:                        {host: true},
		`{"gc": {"enabled": true}}`: {host: true},
		`{"gc": {"enabled": false}, "entitlements": {"network-host": false, "security-insecure": true, "device": false}}`: {budget: build.Budget{Off: true}, insecure: true},
		`{"gc": {"defaultKeepStorage": "1GB"}}`: {budget: build.Budget{Reserved: 1 << 30}, host: true},
		`{"gc": {"defaultKeepStorage": "1GB", "defaultReservedSpace": "2GB", "defaultMaxUsedSpace": "3GB", "defaultMinFreeSpace": "4GB"}}`: {
			budget: build.Budget{Reserved: 2 << 30, MaxUsed: 3 << 30, MinFree: 4 << 30}, host: true},
		`{"gc": {"policy": [{"keepStorage": "512MB", "filter": ["unused-for=48h", "type=source.local"]}, {"all": true, "maxUsedSpace": "5GB", "keepDuration": "1h"}]}}`: {
			budget: build.Budget{Rules: []build.BudgetRule{
				{Reserved: 512 << 20, KeepFor: 48 * time.Hour, Filters: []string{"type==source.local"}},
				{All: true, MaxUsed: 5 << 30, KeepFor: time.Hour},
			}}, host: true},
	} {
		s, err := parseBuilder([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		budget, err := s.budget()
		host, insecure := s.allows()
		if err != nil || !reflect.DeepEqual(budget, want.budget) || host != want.host || insecure != want.insecure {
			t.Errorf("%s: %+v, host network %v, insecure %v, %v", text, budget, host, insecure, err)
		}
	}
	for text, fault := range map[string]string{
		`[]`:                                          `it wants an object, not a list`,
		`{"cache": {}}`:                               `unknown field "cache"`,
		`{"history": {"maxEntries": -1}}`:             `history.maxEntries -1`,
		`{"history": {"maxAge": "old"}}`:              `history.maxAge "old"`,
		`{"history": {"maxAge": "-1h"}}`:              `history.maxAge "-1h"`,
		`{"entitlements": {"device": true}}`:          "entitlements.device",
		`{"gc": {"defaultKeepStorage": "much"}}`:      `gc.defaultKeepStorage "much"`,
		`{"gc": {"policy": [{"keepStorage": "x"}]}}`:  `rule 1: keepStorage "x"`,
		`{"gc": {"policy": [{"filter": ["x=y"]}]}}`:   "rule 1",
		`{"gc": {"policy": [{"filter": ["until"]}]}}`: "KEY=VALUE",
		`{"gc": {"policy": [{"keepDuration": "2"}]}}`: "as in 48h",
	} {
		if _, err := parseBuilder([]byte(text)); err == nil || !strings.Contains(err.Error(), fault) || !strings.Contains(err.Error(), `"builder"`) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestBuilderHistorySettings(t *testing.T) {
	for text, want := range map[string]*build.History{
		`{}`:                           nil,
		`{"history": {}}`:              {},
		`{"history": {"maxAge": "1"}}`: {MaxAge: time.Second},
		`{"History": {"MaxAge": "48h", "MaxEntries": 50}}`: {Newest: 50, MaxAge: 48 * time.Hour},
	} {
		s, err := parseBuilder([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := s.history(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}
