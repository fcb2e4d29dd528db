package network_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/network"
)

// Engines that start and make networks in the same instant never choose the same subnet.
func TestEnginesChooseAtTheSameTime(t *testing.T) {
	h := newHost(t)
	const engines, each = 4, 6
	services := make([]*network.Service, engines)
	configs := make([]network.Config, engines)
	for i := range configs {
		configs[i] = h.config()
		configs[i].Bridge += fmt.Sprint("e", i)
		configs[i].BIP = netip.Prefix{}
	}
	errs := make([]error, engines)
	var wg sync.WaitGroup
	for i := range services {
		wg.Go(func() {
			services[i], errs[i] = network.Open(context.Background(), configs[i])
			for k := range each {
				if errs[i] == nil {
					_, _, errs[i] = services[i].Create(context.Background(), api.CreateRequest{Name: fmt.Sprint("n", k)})
				}
			}
		})
	}
	wg.Wait()
	owners := map[string]string{}
	for i, s := range services {
		if s == nil {
			t.Fatal(errs[i])
		}
		t.Cleanup(func() { _ = s.Teardown() })
		must(t, errs[i])
		all, err := s.List(context.Background(), nil)
		must(t, err)
		for _, n := range all {
			for _, c := range n.IPAM.Config {
				who := fmt.Sprintf("%s of engine %d", n.Name, i)
				if other := owners[c.Subnet.String()]; other != "" {
					t.Errorf("%s and %s have subnet %s", other, who, c.Subnet)
				}
				owners[c.Subnet.String()] = who
			}
		}
	}
	if len(owners) != engines*(each+1) {
		t.Errorf("%d subnets: %v", len(owners), owners)
	}
}

// The name is anybody's to take; for one who is no engine it is not waited.
func TestNobodyElseKeepsAnEngineFromChoosing(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	hold(t, network.PoolLockName)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, _, err := s.Create(ctx, api.CreateRequest{Name: "n"})
	must(t, err)
}

// hold has a user who is no engine hold a name, and returns the process.
func hold(t *testing.T, name string) *os.Process {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asHolder+"="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.StdoutPipe()
	must(t, err)
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "holds\n" {
		t.Fatalf("%q %v", line, err)
	}
	return cmd.Process
}

// Who waits for another engine can give up, and is not kept waiting by one that died.
func TestWaitForAnotherEngineThatChooses(t *testing.T) {
	h := newHost(t)
	s := h.open(h.config())
	release := network.HoldPools(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, _, err := s.Create(ctx, api.CreateRequest{Name: "n"})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("create meanwhile: %v", err)
	}
	done := make(chan error)
	go func() { _, _, err := s.Create(context.Background(), api.CreateRequest{Name: "n"}); done <- err }()
	release()
	must(t, <-done)
}
