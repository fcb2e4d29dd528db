package project

import (
	"errors"
	"testing"
)

// What an engine's error names is found in the object that it is about, and nothing that it does not name.
func TestPlacesWithinAnObject(t *testing.T) {
	file := writeFile(t, t.TempDir(), "compose.yaml", `x-base: &base
  logging: {driver: splunkk}
services:
  other: {image: x, ports: ["8080:80"], restart: allways, user: nobody}
  web:
    <<: *base
    image: x
    ports: ["127.0.0.1:8080:80"]
    restart: allways
    user: nobody
    command: [run, web]
    container_name: taken
    volumes:
      - {type: bind, source: ./none, target: /n}
      - ./d:/etc/passwd
    networks: {n: {ipv4_address: 10.0.0.1}}
`)
	for text, line := range map[string]int{
		`Bind for 0.0.0.0:8080 failed: port is already allocated: container "taken" publishes it`: 8,
		`invalid restart policy: unknown policy 'allways'; use one of 'no'`:                       9,
		`logger: no log driver named 'splunkk' is registered`:                                     2,
		`unable to find user nobody: no matching entries`:                                         10,
		`exec: "run": executable file not found in $PATH`:                                         11,
		`Conflict. The container name "/taken" is already in use by container "0a"`:               12,
		`error mounting to rootfs at "/etc/passwd": not a directory`:                              15,
		`no configured subnet or ip-range contain the IP address 10.0.0.1: network n has [x]`:     16,
		`service "web": something`:                                                                0, // its own name is no value
		`invalid mount config for type "bind": bind source path does not exist: /none`:            0,
		`Range of CPUs is from 0.01 to 2.00`:                                                      0,
		`exec: "nonesuch": executable file not found`:                                             0,
	} {
		var placed *PlacedError
		if err := LocateWithin(errors.New(text), []string{file}, "services", "web"); errors.As(err, &placed) != (line > 0) {
			t.Errorf("%s: %v, want line %d", text, err, line)
		} else if line > 0 && placed.Place.Line != line {
			t.Errorf("%s: %v, want line %d", text, err, line)
		}
	}
}
