package nft_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/internal/nft"
)

// A firewall that loads its rules anew numbers them anew: none of them is taken for one of ours, which had its number
// before.
func TestForeignRulesStayWhileTheyAreLoadedAnew(t *testing.T) {
	inNewNS(t)
	const times, most = 300, 40
	load := func(rules int) string {
		text := "flush ruleset; table inet fw { chain guard { type filter hook forward priority 0; policy drop; "
		for i := range rules {
			text += fmt.Sprintf("tcp dport %d accept; ", i+1)
		}
		return text + "}; }\n"
	}
	loads := exec.Command("nft", "-i")
	loads.Stdin = strings.NewReader(strings.Repeat(load(1)+load(most)+"list chain inet fw guard\n", times))
	var said strings.Builder
	loads.Stdout, loads.Stderr = &said, &said
	if err := loads.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- loads.Wait() }()
	bridges := []nft.Forwarded{{Bridge: "clt0", IPv4: true}}
	for {
		select {
		case err := <-ended:
			if n := strings.Count(said.String(), " dport "); err != nil || n != times*most {
				t.Errorf("%v, %d rules are left of %d", err, n, times*most)
			}
			return
		default:
		}
		if err := nft.Integrate(bridges, "cleat-clt0"); err != nil {
			t.Error(err)
		}
		if err := nft.Withdraw("cleat-clt0"); err != nil {
			t.Error(err)
		}
	}
}
