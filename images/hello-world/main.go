// Command hello-world is the whole content of the hello-world image: it greets
// the user and says which steps have just happened to bring the greeting here.
package main

import "fmt"

const greeting = `
Hello from Cleat!
This message shows that your installation works.

To print it, these steps have just happened:
 1. The client (cleat) asked the engine (cleatd) over its socket for a container
    from the image "hello-world".
 2. The engine did not have the image yet, so the client had it pulled: its one
    layer came from the registry and was checked against its digest.
 3. The engine mounted the layer below a fresh writable one and started this
    program in namespaces, a control group and a system call filter of its own.
 4. The engine kept what the program wrote in the container's log and passed it
    on to the client, which printed it here.

Try something more ambitious:
 $ cleat run -d -p 8080:80 --name my-nginx nginx
 $ cleat ps
 $ cleat logs -f my-nginx
`

func main() { fmt.Print(greeting) }
