// lookup prints the addresses of names, as Go's own resolver finds them.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
)

func main() {
	r := net.Resolver{PreferGo: true}
	for _, name := range os.Args[1:] {
		addrs, err := r.LookupHost(context.Background(), name)
		if err != nil {
			fmt.Println(name, "error")
			continue
		}
		for _, a := range addrs {
			fmt.Println(name, a)
		}
	}
}
