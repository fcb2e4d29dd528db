package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// What is made for many: each of the containers is on one of the networks and publishes some
// ports.
const (
	manyNets  = 200
	manyEach  = 5
	manyPorts = 5
	manyTenth = 10 // what is compared: the first and the last tenth
)

// many creates networks and containers on them that stay, and removes all: what the last one
// costs, of what the first one did. Nothing of it may be left.
func many(ctx context.Context, s *system, _ any, record func(string, float64)) (err error) {
	before, err := s.leftovers()
	if err != nil {
		return err
	}
	var nets, ids []string
	var created, started, removed []float64
	keep := func(into *[]float64) func(string, float64) {
		return func(_ string, ms float64) { *into = append(*into, ms) }
	}
	defer func() {
		for _, id := range ids {
			err = errors.Join(err, s.remove(id))
		}
		for _, n := range nets {
			err = errors.Join(err, s.call(context.Background(), "DELETE", "/networks/"+n, nil, nil))
		}
	}()
	for i := range manyNets {
		name := fmt.Sprint("many", i)
		err := timed(keep(&created), "", func() error {
			return s.call(ctx, "POST", "/networks/create", object{"Name": name, "Driver": "bridge"}, nil)
		})
		if err != nil {
			return err
		}
		nets = append(nets, name)
		for range manyEach {
			ports := object{}
			for p := range manyPorts {
				ports[fmt.Sprintf("%d/tcp", 80+p)] = []object{{"HostPort": ""}}
			}
			id, err := s.create(ctx, object{"NetworkMode": name, "PortBindings": ports}, "sleep", "3600")
			if err != nil {
				return err
			}
			ids = append(ids, id)
			if err := timed(keep(&started), "", func() error { return s.start(ctx, id) }); err != nil {
				return err
			}
		}
	}
	for len(ids) > 0 {
		id := ids[0]
		ids = ids[1:]
		if err := timed(keep(&removed), "", func() error { return s.remove(id) }); err != nil {
			return err
		}
	}
	for len(nets) > 0 {
		n := nets[0]
		nets = nets[1:]
		if err := s.call(ctx, "DELETE", "/networks/"+n, nil, nil); err != nil {
			return err
		}
	}
	compareEnds(record, created, manyNetworks, manyNetworksLate)
	compareEnds(record, started, manyStarts, manyStartsLate)
	compareEnds(record, removed, manyEnds, manyEndsLate)
	return s.awaitLeftovers(ctx, before)
}

// compareEnds records as early what the first of many took, and as compared what of that the last took.
func compareEnds(record func(string, float64), took []float64, early, compared string) {
	n := len(took) / manyTenth
	first, last := middle(took[:n]), middle(took[len(took)-n:])
	record(early, first)
	record(compared, last/first)
}

// awaitLeftovers waits until there is left what there was before: bridges are deleted behind the answers.
func (s *system) awaitLeftovers(ctx context.Context, before string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		after, err := s.leftovers()
		if err != nil || after == before {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("of %d networks there is left: %s; before there was: %s", manyNets, after, before)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func middle(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// leftovers are the bridges and the published ports in the engine's network namespace.
func (s *system) leftovers() (string, error) {
	out, err := exec.Command("nsenter", "-n", "-t", fmt.Sprint(s.held.cmd.Process.Pid), "sh", "-c", "ip -br link show type bridge; nft list ruleset").Output()
	if err != nil {
		return "", err
	}
	var bridges int
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "br-") {
			bridges++
		}
	}
	return fmt.Sprintf("%d bridges, %d published ports", bridges, bytes.Count(out, []byte("tcp . "))), nil
}
