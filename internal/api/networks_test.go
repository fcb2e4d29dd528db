package api_test

import (
	"testing"

	networktypes "github.com/moby/moby/api/types/network"
)

func TestNetworkCreateIgnoresNewerFields(t *testing.T) {
	var got networktypes.CreateRequest
	f := &fake{}
	f.networks.create = func(req networktypes.CreateRequest) (string, []string, error) { got = req; return "n", nil, nil }
	d := serve(t, f)
	for version, want := range map[string]bool{"/v1.47": false, "/v1.48": true, "": true} {
		reply := d.call("POST", version+"/networks/create", `{"Name":"x","EnableIPv4":false}`)
		if reply.status != 201 || (got.EnableIPv4 != nil) != want {
			t.Errorf("%s: %d %s, EnableIPv4 %v", version, reply.status, reply.body, got.EnableIPv4)
		}
	}
}
