package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// buildClients are the command lines that articles are tried with.
var buildClients = []string{"docker", "cleat"}

// eachBuilder runs f once with every client that builds, as subtests, and with image
// names that are the subtest's own.
func eachBuilder(t *testing.T, f func(t *testing.T, program, image string)) {
	for _, p := range buildClients {
		t.Run(p, func(t *testing.T) { f(t, p, "article-"+name(t)) })
	}
}

// TestFlaskArticle is "Containerize a Python web application": requirements first, so
// that a change of the code does not install them again.
func TestFlaskArticle(t *testing.T) {
	e := builder(t)
	eachBuilder(t, func(t *testing.T, program, image string) {
		dir := project(t, files{
			"Dockerfile": `FROM python:3.12-slim

WORKDIR /app

COPY requirements.txt .
COPY wheels wheels
RUN pip install --no-cache-dir --no-index --find-links=wheels -r requirements.txt

COPY . .

ENV FLASK_APP=app.py
EXPOSE 5000
CMD ["python", "-m", "flask", "run", "--host=0.0.0.0"]
`,
			".dockerignore":    "__pycache__\n*.pyc\n.git\n",
			"requirements.txt": "Flask==2.2.2\nWerkzeug==2.2.2\nJinja2==3.1.2\nMarkupSafe==2.1.2\nitsdangerous==2.1.2\nclick==8.1.3\n",
			"app.py": `from flask import Flask

app = Flask(__name__)

@app.route("/")
def hello():
    return "Hello from Flask"
`,
		})
		copyDir(t, harness.Wheels(t), filepath.Join(dir, "wheels"))
		dropImages(t, e, image)
		build(t, e, program, dir, "-t", image)
		answers(t, e, program, image, "5000", "Hello from Flask")

		replace(t, filepath.Join(dir, "app.py"), "Hello from", "Good-bye to "+program+" from")
		log := build(t, e, program, dir, "-t", image+":2")
		dropImages(t, e, image+":2")
		log.wantCached(t, []string{"RUN pip install", "COPY requirements.txt"}, []string{"COPY . ."})
		answers(t, e, program, image+":2", "5000", "Good-bye to "+program+" from Flask")
	})
}

// TestNodeArticle is "Dockerizing a Node.js web app".
func TestNodeArticle(t *testing.T) {
	e := builder(t)
	eachBuilder(t, func(t *testing.T, program, image string) {
		dir := project(t, files{
			"Dockerfile": `FROM node:20-alpine
WORKDIR /usr/src/app
COPY package*.json ./
RUN npm ci --omit=dev
COPY . .
USER nobody
EXPOSE 3000
CMD ["npm", "start"]
`,
			".dockerignore": "node_modules\nnpm-debug.log\n",
			"package.json":  read(t, "testdata/node/package.json"), "package-lock.json": read(t, "testdata/node/package-lock.json"),
			"server.js": `const app = require("express")();
app.get("/", (req, res) => res.send("Hello from Node"));
app.listen(3000, "0.0.0.0");
`,
			"node_modules/express/index.js": `throw new Error("the context's modules are in the image");`,
		})
		dropImages(t, e, image, image+":2")
		build(t, e, program, dir, "-t", image)
		// npm wants a cache directory that nobody has at home.
		answers(t, e, program, image, "3000", "Hello from Node", "-e", "npm_config_cache=/tmp/npm")

		replace(t, filepath.Join(dir, "server.js"), "Hello from", "Good-bye to "+program+" from")
		log := build(t, e, program, dir, "-t", image+":2")
		log.wantCached(t, []string{"RUN npm ci", "COPY package*.json"}, []string{"COPY . ."})
		answers(t, e, program, image+":2", "3000", "Good-bye to "+program+" from Node", "-e", "npm_config_cache=/tmp/npm")
	})
}

// TestGoArticle is "Multi-stage builds for Go": modules first, the compiler's cache in a
// mount, the program alone in the last stage.
func TestGoArticle(t *testing.T) {
	e := builder(t)
	eachBuilder(t, func(t *testing.T, program, image string) {
		dir := project(t, files{
			"Dockerfile": `# syntax=docker/dockerfile:1
FROM golang:1.26 AS build
WORKDIR /src
ARG GOPROXY
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN --mount=type=cache,target=/root/.cache/go-build CGO_ENABLED=0 go build -ldflags="-s -w" -o /bin/hello .

FROM alpine:3.20 AS small
COPY --from=build /bin/hello /hello
EXPOSE 8080
CMD ["/hello"]

FROM debian:bookworm-slim
COPY --from=build /bin/hello /usr/local/bin/hello
RUN useradd --system hello
USER hello
EXPOSE 8080
ENTRYPOINT ["hello"]
`,
			"go.mod": read(t, "testdata/golang/go.mod.txt"), "go.sum": read(t, "testdata/golang/go.sum.txt"),
			"main.go": read(t, "testdata/golang/main.go.txt"),
		})
		dropImages(t, e, image, image+":small", image+":2")
		args := []string{"--build-arg", "GOPROXY=" + goProxy(t)}
		build(t, e, program, dir, append(args, "-t", image)...)
		answers(t, e, program, image, "8080", "Hello from Go")

		// The same program on a small image: all of it is 12 to 20 MB.
		log := build(t, e, program, dir, append(args, "-t", image+":small", "--target", "small")...)
		log.wantCached(t, []string{"RUN go mod download", "go build -ldflags"}, nil)
		answers(t, e, program, image+":small", "8080", "Hello from Go")
		size, err := strconv.ParseInt(e.OK(t, program, "image", "inspect", "-f", "{{.Size}}", image+":small"), 10, 64)
		if err != nil || size < 12e6 || size > 20e6 {
			t.Errorf("the image of a program and a shell has %d bytes (%v)", size, err)
		}

		replace(t, filepath.Join(dir, "main.go"), "Hello from", "Good-bye to "+program+" from")
		log = build(t, e, program, dir, append(args, "-t", image+":2")...)
		log.wantCached(t, []string{"RUN go mod download", "COPY go.mod go.sum"}, []string{"go build -ldflags"})
		answers(t, e, program, image+":2", "8080", "Good-bye to "+program+" from Go")
	})
}

// TestSiteArticle is "Host a static site with nginx", and what Debian's packages add.
func TestSiteArticle(t *testing.T) {
	e := builder(t)
	eachBuilder(t, func(t *testing.T, program, image string) {
		dir := project(t, files{
			"Dockerfile":      "FROM nginx:alpine\nRUN rm -rf /var/www/html/*\nCOPY site /var/www/html\n",
			"site/index.html": "<h1>Hello from a file</h1>\n",
		})
		dropImages(t, e, image)
		build(t, e, program, dir, "-t", image)
		answers(t, e, program, image, "80", "Hello from a file")
		if got := e.OK(t, program, "image", "inspect", "-f", "{{.Config.StopSignal}} {{.Config.Cmd}}", image); got != "SIGQUIT [nginx -g daemon off;]" {
			t.Errorf("the base image's configuration became %s", got)
		}
	})
}

// TestPackagesArticle installs from Debian in a step, as most Dockerfiles do.
func TestPackagesArticle(t *testing.T) {
	e := builder(t)
	eachBuilder(t, func(t *testing.T, program, image string) {
		dir := project(t, files{"Dockerfile": `FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
    tini \
 && rm -rf /var/lib/apt/lists/*
ENTRYPOINT ["tini", "--"]
CMD ["echo", "installed"]
`})
		dropImages(t, e, image)
		build(t, e, program, dir, "-t", image)
		if got := e.OK(t, program, "run", "--rm", image); got != "installed" {
			t.Errorf("%q", got)
		}
	})
}

// goProxy is where this machine's Go gets modules from.
func goProxy(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOPROXY").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func replace(t *testing.T, file, old, new string) {
	t.Helper()
	text := read(t, file)
	if !strings.Contains(text, old) {
		t.Fatalf("%q is not in %s", old, file)
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, old, new)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}
