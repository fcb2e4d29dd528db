package nft_test

import (
	"testing"

	"github.com/cleatlabs/cleat/internal/nft"
)

// A ruleset that others change all the time, as several engines on one host do, is read whole all the same.
func TestReadWhileOthersChange(t *testing.T) {
	inNewNS(t)
	own, other := open(t, "cleat-own"), open(t, "cleat-other")
	for _, tab := range []*nft.Table{own, other} {
		if err := tab.Assert(); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, own, nft.Change{Add: ports()})
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			err := other.Apply(nft.Change{Add: ports()})
			if err == nil {
				err = other.Apply(nft.Change{Del: ports()})
			}
			if err != nil {
				stopped <- err
				return
			}
		}
	}()
	for range 300 {
		again, err := nft.Open("cleat-own")
		if err != nil {
			t.Error("open:", err)
			break
		}
		if got := len(again.Published()); got != len(ports()) {
			t.Errorf("%d ports are published", got)
		}
		again.Close()
		if err := nft.Withdraw("cleat-none"); err != nil {
			t.Error("withdraw:", err)
			break
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
