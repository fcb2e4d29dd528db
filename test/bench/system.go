package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"time"
)

// callTimeout is far beyond what any engine takes for one request: a hang is an error.
const callTimeout = 2 * time.Minute

// system is one of those compared: an engine with an API, and perhaps a command line
// client, or a bare runtime.
type system struct {
	name   string
	held   *held
	socket string
	cgroup string
	http   *http.Client
	client []string
	// composer is the program that brings up Compose projects; nil for none.
	composer []string
	bare     *bundle
	thread   chan func() // what the client is started from, if it matters
	ready    time.Duration
}

func (s *system) request(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	kind := "application/json"
	switch in := in.(type) {
	case nil:
	case io.Reader:
		body, kind = in, "application/x-tar"
	default:
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	// The newest version that podman 4 and dockerd 20.10 serve, too.
	req, err := http.NewRequestWithContext(ctx, method, "http://engine/v1.40"+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", kind)
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(b))
	}
	return resp, nil
}

func (s *system) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := s.request(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && out != nil {
		err = json.Unmarshal(b, out)
	}
	return err
}

type object = map[string]any

func (s *system) create(ctx context.Context, host object, cmd ...string) (string, error) {
	return s.createNamed(ctx, "", host, cmd...)
}

// createNamed makes a container with a name, if one is given.
func (s *system) createNamed(ctx context.Context, name string, host object, cmd ...string) (string, error) {
	host["CgroupParent"] = s.cgroup
	path := "/containers/create"
	if name != "" {
		path += "?name=" + name
	}
	exposed := object{}
	if ports, ok := host["PortBindings"].(object); ok {
		for port := range ports {
			exposed[port] = object{}
		}
	}
	var made struct{ Id string }
	err := s.call(ctx, "POST", path, object{"Image": "busybox", "Cmd": cmd, "ExposedPorts": exposed, "HostConfig": host}, &made)
	return made.Id, err
}

func (s *system) start(ctx context.Context, id string) error {
	return s.call(ctx, "POST", "/containers/"+id+"/start", nil, nil)
}

func (s *system) wait(ctx context.Context, id string) error {
	return s.call(ctx, "POST", "/containers/"+id+"/wait", nil, nil)
}

// run starts a container that stays.
func (s *system) run(ctx context.Context, network string, cmd ...string) (string, error) {
	id, err := s.create(ctx, object{"NetworkMode": network}, cmd...)
	if err != nil {
		return "", err
	}
	return id, s.start(ctx, id)
}

// remove ends the container too, whether or not the measurement was interrupted.
func (s *system) remove(id string) error {
	if id == "" {
		return nil
	}
	return s.call(context.Background(), "DELETE", "/containers/"+id+"?force=1&v=1", nil, nil)
}

// exec ends when the program has.
func (s *system) exec(ctx context.Context, id, program string) error {
	if s.bare != nil {
		return s.bare.call(ctx, "exec", id, program)
	}
	var x struct{ Id string }
	if err := s.call(ctx, "POST", "/containers/"+id+"/exec", object{"Cmd": []string{program}, "AttachStdout": true}, &x); err != nil {
		return err
	}
	return s.call(ctx, "POST", "/exec/"+x.Id+"/start", object{}, nil)
}

// life is the life of a container of a program that ends by itself.
func (s *system) life(ctx context.Context, network, program string, record func(string, float64)) error {
	var id string
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"create", func() (err error) { id, err = s.create(ctx, object{"NetworkMode": network}, program); return err }},
		{"start", func() error { return s.start(ctx, id) }},
		{"wait", func() error { return s.wait(ctx, id) }},
		{"rm", func() error { return s.call(ctx, "DELETE", "/containers/"+id, nil, nil) }},
	} {
		if err := timed(record, "  "+step.name, step.do); err != nil {
			return errors.Join(err, s.remove(id))
		}
	}
	return nil
}

// command runs the system's own client.
func (s *system) command(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.client[0], append(s.client[1:len(s.client):len(s.client)], args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+s.socket, "DOCKER_BUILDKIT=1")
	var out []byte
	var err error
	run := func() { out, err = cmd.CombinedOutput() }
	if s.thread == nil {
		run()
	} else {
		done := make(chan struct{})
		s.thread <- func() { run(); close(done) }
		<-done
	}
	if err != nil {
		return fmt.Errorf("%v: %w: %s", args, err, out)
	}
	return nil
}

// timed records how many milliseconds do has taken, if it succeeds.
func timed(record func(string, float64), name string, do func() error) error {
	begin := time.Now()
	if err := do(); err != nil {
		return err
	}
	record(name, float64(time.Since(begin).Microseconds())/1000)
	return nil
}
