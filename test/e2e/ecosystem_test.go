package e2e

import (
	"encoding/json"
	"testing"
)

// What follows holds the habits of programs that were seen to fail for them: each is
// the bare request that the program makes.

// TestExecStartDecidesAboutFrames has what Ansible's docker_container_exec does: it
// never asks for a TTY at create, and reads frames only if it asks for none at start.
func TestExecStartDecidesAboutFrames(t *testing.T) {
	e := engine(t, "busybox")
	p := plainly(t, e)
	const name = "ecosystem-frames"
	e.OK(t, "cleat", "run", "-d", "--name", name, "busybox", "sleep", "1000")
	defer e.OK(t, "cleat", "rm", "-f", name)
	for _, test := range []struct{ create, start, want string }{
		{"false", `{"Tty":true}`, "out\n"},
		{"false", `{"Tty":false}`, "\x01\x00\x00\x00\x00\x00\x00\x04out\n"},
		{"false", `{}`, "\x01\x00\x00\x00\x00\x00\x00\x04out\n"},
		{"true", `{"Tty":true}`, "out\r\n"},
		{"true", `{"Tty":false}`, "\x01\x00\x00\x00\x00\x00\x00\x05out\r\n"},
	} {
		made := p.want(201, "POST", "/v1.41/containers/"+name+"/exec",
			`{"AttachStdout":true,"AttachStderr":true,"Tty":`+test.create+`,"Cmd":["echo","out"]}`, `"Id"`)
		var exec struct{ Id string }
		if err := json.Unmarshal([]byte(made), &exec); err != nil {
			t.Fatal(err)
		}
		if _, got := p.call("POST", "/v1.41/exec/"+exec.Id+"/start", test.start); got != test.want {
			t.Errorf("created with Tty %s, started with %s: %q, want %q", test.create, test.start, got, test.want)
		}
	}
}
