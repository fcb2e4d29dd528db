package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/harness"
)

// article is a project whose files stand in everyday articles, on the engine that has what
// they start from.
func article(t *testing.T, fs map[string]string) *application {
	t.Helper()
	e := builder(t)
	a := compose(t, e, fs)
	t.Cleanup(func() { // before compose's own, which still needs the project
		a.ok(t, "down", "-v", "-t", "0", "--rmi", "local", "--remove-orphans")
	})
	return a
}

// withDatabases gives the builder's engine the images redis and postgres under the names that
// articles use. Those of images/make need only the entrypoint's everyday variables.
func withDatabases(t *testing.T) {
	t.Helper()
	e := builder(t)
	if e.Cleat(t, "image", "inspect", "postgres:16-alpine").Code == 0 {
		return
	}
	e.Load(t, "redis", "postgres")
	e.OK(t, "cleat", "tag", "redis", "redis:7-alpine")
	dir := project(t, files{
		"Dockerfile":            "FROM postgres:latest\nCOPY docker-entrypoint.sh /usr/local/bin/\nENTRYPOINT [\"docker-entrypoint.sh\"]\nCMD [\"postgres\", \"-c\", \"listen_addresses=*\"]\n",
		"docker-entrypoint.sh*": read(t, "testdata/postgres/docker-entrypoint.sh"),
	})
	build(t, e, "cleat", dir, "-t", "postgres:16-alpine")
}

// says waits until a server, which may just be starting, answers with a page that has the
// text in it, and returns the page.
func says(t *testing.T, a *application, url, want string) string {
	t.Helper()
	var got string
	var last time.Time
	logs := ""
	harness.Eventually(t, func() (bool, string) {
		var err error
		got, err = fetched(url)
		if err == nil && strings.Contains(got, want) {
			return true, ""
		}
		if time.Since(last) > 5*time.Second { // for the failure's message
			said := a.run(t, "logs", "--tail", "20")
			last, logs = time.Now(), a.run(t, "ps", "-a").Stdout+said.Stdout+said.Stderr
		}
		return false, fmt.Sprintf("%s: %v\n%q, want %q\n%s", url, err, got, want, logs)
	})
	return got
}

const flaskRequirements = "Flask==2.2.2\nWerkzeug==2.2.2\nJinja2==3.1.2\nMarkupSafe==2.1.2\nitsdangerous==2.1.2\nclick==8.1.3\n"

// flaskDockerfile is that of Flask articles, with its packages from the context.
const flaskDockerfile = `FROM python:3.12-slim
WORKDIR /app
COPY requirements.txt .
COPY wheels wheels
RUN pip install --no-cache-dir --no-index --find-links=wheels -r requirements.txt
COPY . .
CMD ["python", "app.py"]
`

// TestComposeArticleNginxFlask is "Deploy Flask with nginx and Docker Compose": only nginx is
// published, the application reads its settings from a .env that is bound.
func TestComposeArticleNginxFlask(t *testing.T) {
	port := freePort(t)
	a := article(t, map[string]string{
		"docker-compose.yml": `version: "3.8"

services:
  backend:
    build: ./backend
    restart: unless-stopped
    env_file: .env
    volumes:
      - ./.env:/app/.env:ro
    expose:
      - "5000"

  nginx:
    image: nginx:alpine
    restart: unless-stopped
    ports:
      - "127.0.0.1:${NGINX_PORT}:80"
    volumes:
      - ./nginx/default.conf:/etc/nginx/conf.d/default.conf:ro
    depends_on:
      - backend
`,
		".env": "NGINX_PORT=" + port + "\nSECRET_KEY=\"not a secret\"\nGREETING=Hello\n",
		"nginx/default.conf": `upstream backend {
    server backend:5000;
}

server {
    listen 80;
    server_name localhost;

    location / {
        proxy_pass http://backend;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }
}
`,
		"backend/Dockerfile":       flaskDockerfile,
		"backend/.dockerignore":    "__pycache__\n",
		"backend/requirements.txt": flaskRequirements,
		"backend/app.py": `import os
from flask import Flask, request

app = Flask(__name__)

def bound():
    with open("/app/.env") as f:
        return dict(line.strip().split("=", 1) for line in f)

@app.route("/")
def index():
    return f"{bound()['GREETING']} from {os.environ['GREETING']}: {os.environ['SECRET_KEY']} by {request.headers['X-Forwarded-For']}"

if __name__ == "__main__":
    app.run(host="0.0.0.0", port=5000)
`,
	})
	copyDir(t, harness.Wheels(t), filepath.Join(a.dir, "backend/wheels"))
	r := a.run(t, "up", "-d", "--build")
	if r.Code != 0 || !strings.Contains(r.Stderr, "the attribute `version` is obsolete") {
		t.Fatalf("%d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
	}
	says(t, a, "http://localhost:"+port+"/", "Hello from Hello: not a secret by ")
	// What is bound is the file itself; the environment is of the container's start.
	replace(t, filepath.Join(a.dir, ".env"), "GREETING=Hello", "GREETING=Good-bye")
	says(t, a, "http://localhost:"+port+"/", "Good-bye from Hello: ")
	a.ok(t, "up", "-d")
	says(t, a, "http://localhost:"+port+"/", "Good-bye from Good-bye: ")
	if got := a.run(t, "port", "backend", "5000"); got.Code == 0 && strings.TrimSpace(got.Stdout) != ":0" && strings.TrimSpace(got.Stdout) != "" {
		t.Errorf("what is only exposed is published at %s", got.Stdout)
	}
}

// TestComposeArticleLiveEdit is "Develop with Docker Compose": the code is bound over what was
// built, and the server takes changes over by itself.
func TestComposeArticleLiveEdit(t *testing.T) {
	port := freePort(t)
	own := "live-edit-" + port
	a := article(t, map[string]string{
		"compose.yaml": `services:
  web:
    build: .
    container_name: ` + own + `
    command: flask --debug run --host=0.0.0.0
    ports:
      - "127.0.0.1:` + port + `:5000"
    volumes:
      - .:/app
      - /app/instance
    environment:
      FLASK_APP: app.py
      FLASK_RUN_EXTRA_FILES: /app/banner.txt
`,
		"Dockerfile": flaskDockerfile, "requirements.txt": flaskRequirements, "banner.txt": "a banner",
		"app.py": `from flask import Flask

app = Flask(__name__)

@app.route("/")
def index():
    return "first version, " + open("banner.txt").read()
`,
	})
	copyDir(t, harness.Wheels(t), filepath.Join(a.dir, "wheels"))
	a.ok(t, "up", "--build", "--detach")
	says(t, a, "http://127.0.0.1:"+port, "first version, a banner")
	id := a.ids(t)[own]
	if id == "" {
		t.Fatalf("no container is called %s: %v", own, a.ids(t))
	}
	replace(t, filepath.Join(a.dir, "app.py"), "first", "second")
	says(t, a, "http://127.0.0.1:"+port, "second version")
	a.ok(t, "up", "-d")
	if a.ids(t)[own] != id {
		t.Error("an edit of bound files made the container anew")
	}
	// A mistake does not end the server, and the next edit mends it.
	replace(t, filepath.Join(a.dir, "app.py"), "return ", "return 1/0 + ")
	says(t, a, "http://127.0.0.1:"+port, "ZeroDivisionError")
	replace(t, filepath.Join(a.dir, "app.py"), "return 1/0 + ", "return ")
	says(t, a, "http://127.0.0.1:"+port, "second version")
	a.ok(t, "restart", "web")
	says(t, a, "http://127.0.0.1:"+port, "second version")
	if got := a.run(t, "logs", "--no-log-prefix", "web").Stdout; strings.Count(got, "Running on all addresses") < 2 {
		t.Errorf("the restart is not in the logs: %s", got)
	}
}

// TestComposeArticleThreeTiers is "Node.js with PostgreSQL and Redis": each waits for the
// health of what it needs, the database is filled by a script, data outlive the containers.
func TestComposeArticleThreeTiers(t *testing.T) {
	withDatabases(t)
	port := freePort(t)
	a := article(t, map[string]string{
		"docker-compose.yml": `services:
  web:
    build: .
    ports:
      - "127.0.0.1:${WEB_PORT:-3000}:3000"
    environment:
      DATABASE_URL: postgres://app:${DB_PASSWORD:?set it in .env}@db:5432/shop
      REDIS_URL: redis://cache:6379
    depends_on:
      db:
        condition: service_healthy
        restart: true
      cache:
        condition: service_healthy
    stop_grace_period: 2s

  db:
    image: postgres:16-alpine
    environment:
      POSTGRES_USER: app
      POSTGRES_PASSWORD: ${DB_PASSWORD}
      POSTGRES_DB: shop
    volumes:
      - db-data:/var/lib/postgresql/data
      - ./init.sql:/docker-entrypoint-initdb.d/init.sql:ro
    healthcheck:
      test: ["CMD-SHELL", "pg_isready -U $${POSTGRES_USER} -d $${POSTGRES_DB} -h 127.0.0.1"]
      interval: 1s
      timeout: 5s
      retries: 60

  cache:
    image: redis:7-alpine
    command: redis-server --save "" --appendonly no --protected-mode no
    healthcheck:
      test: ["CMD", "redis-cli", "ping"]
      interval: 1s
      timeout: 3s
      retries: 60

volumes:
  db-data:
`,
		".env":     "WEB_PORT=" + port + "\nDB_PASSWORD='p4ss$$word'\n",
		"init.sql": "CREATE TABLE products (id serial PRIMARY KEY, name text NOT NULL);\nINSERT INTO products (name) VALUES ('anchor'), ('cleat');\n",
		"Dockerfile": `FROM node:20-alpine
WORKDIR /usr/src/app
COPY package*.json ./
RUN npm install --omit=dev --no-audit --no-fund
COPY . .
EXPOSE 3000
CMD ["node", "server.js"]
`,
		"package.json": `{"name": "shop", "private": true, "dependencies": {"pg": "8.11.5", "redis": "4.6.13"}}`,
		"server.js": `const http = require('http');
const { Pool } = require('pg');
const { createClient } = require('redis');

const pool = new Pool({ connectionString: process.env.DATABASE_URL.replace('p4ss$$word', encodeURIComponent('p4ss$$word')) });
const cache = createClient({ url: process.env.REDIS_URL });
cache.on('error', (err) => console.error(err.message));

const server = http.createServer(async (req, res) => {
  try {
    if (req.method === 'POST') {
      await pool.query('INSERT INTO products (name) VALUES ($1)', [req.url.slice(1)]);
      res.writeHead(201).end();
      return;
    }
    const hits = await cache.incr('hits');
    const { rows } = await pool.query('SELECT name FROM products ORDER BY id');
    res.end(JSON.stringify({ hits, products: rows.map((r) => r.name) }));
  } catch (err) {
    res.writeHead(500).end(err.message);
  }
});
cache.connect().then(() => server.listen(3000));
`,
	})
	url := "http://127.0.0.1:" + port + "/"
	a.ok(t, "up", "-d", "--wait")
	if got := says(t, a, url, "products"); got != `{"hits":1,"products":["anchor","cleat"]}` {
		t.Errorf("the first page: %s", got)
	}
	res, err := http.Post(url+"halyard", "", nil)
	if err != nil || res.StatusCode != http.StatusCreated {
		t.Fatalf("%v: %v", res, err)
	}
	res.Body.Close()
	if got := a.ok(t, "exec", "-T", "db", "psql", "-U", "app", "-d", "shop", "-Atc", "SELECT count(*) FROM products"); got != "3" {
		t.Errorf("psql counts %q", got)
	}
	if got := a.ok(t, "exec", "-T", "cache", "redis-cli", "get", "hits"); got != "1" {
		t.Errorf("redis has %q", got)
	}
	if got := a.ok(t, "ps", "--format", "{{.Service}} {{.Health}}"); got != "cache healthy\ndb healthy\nweb" {
		t.Errorf("ps: %q", got)
	}
	// The database outlives its container, the cache does not.
	a.ok(t, "down")
	a.ok(t, "up", "-d")
	if got := says(t, a, url, "products"); got != `{"hits":1,"products":["anchor","cleat","halyard"]}` {
		t.Errorf("after down and up: %s", got)
	}
	// web said that it is to be restarted with the database.
	before := a.e.OK(t, "cleat", "inspect", "-f", "{{.State.StartedAt}}", a.name+"-web-1")
	a.ok(t, "restart", "-t", "5", "db")
	if a.e.OK(t, "cleat", "inspect", "-f", "{{.State.StartedAt}}", a.name+"-web-1") == before {
		t.Error("web was not restarted with db")
	}
	says(t, a, url, "halyard")
}

// TestComposeArticleNetworks is "Networking in Compose": the proxy does not see the database,
// the database does not see the world.
func TestComposeArticleNetworks(t *testing.T) {
	withDatabases(t)
	port := freePort(t)
	four, _ := harness.Subnet(t)
	a := article(t, map[string]string{
		"compose.yaml": `services:
  proxy:
    image: nginx:alpine
    ports: ["127.0.0.1:` + port + `:80"]
    volumes: ["./proxy.conf:/etc/nginx/conf.d/default.conf:ro"]
    depends_on: [app]
    networks:
      - front-tier
  app:
    image: python:3.12-slim
    command: python -m http.server 8000
    working_dir: /srv
    volumes: ["./www:/srv:ro"]
    networks:
      front-tier:
        aliases: [application]
      back-tier:
    stop_signal: SIGKILL
  db:
    image: redis:7-alpine
    networks:
      back-tier:
        ipv4_address: ` + four + `10

networks:
  front-tier:
  back-tier:
    internal: true
    ipam:
      config:
        - subnet: ` + four + `0/24
`,
		"proxy.conf":     "server { listen 80; server_name 127.0.0.1; location / { proxy_pass http://application:8000; } }\n",
		"www/index.html": "through the proxy\n",
	})
	a.ok(t, "up", "-d")
	says(t, a, "http://127.0.0.1:"+port, "through the proxy")
	lookup := `import socket, sys
try:
    print(socket.gethostbyname(sys.argv[1]))
except OSError:
    print("unknown")`
	if got := a.ok(t, "exec", "-T", "app", "python3", "-c", lookup, "db"); got != four+"10" {
		t.Errorf("app finds db at %q", got)
	}
	if got := a.ok(t, "exec", "-T", "app", "python3", "-c", `import socket
import time
while True: # it may just be starting
    try: s = socket.create_connection(("db", 6379), 10); break
    except ConnectionRefusedError: time.sleep(0.1)
s.sendall(b"PING\r\n")
print(s.recv(16).decode().strip())`); got != "+PONG" {
		t.Errorf("db answers app %q", got)
	}
	if got := a.ok(t, "exec", "-T", "proxy", "getent", "hosts", "app"); !strings.Contains(got, "app") {
		t.Errorf("proxy finds app at %q", got)
	}
	if r := a.run(t, "exec", "-T", "proxy", "getent", "hosts", "db"); r.Code == 0 {
		t.Errorf("proxy finds db: %s", r.Stdout)
	}
	if r := a.run(t, "exec", "-T", "proxy", "bash", "-c", "timeout 1 bash -c '</dev/tcp/"+four+"10/6379'"); r.Code == 0 {
		t.Error("proxy reaches db by its address")
	}
	// An internal network has no way out.
	for route := range strings.Lines(a.ok(t, "exec", "-T", "db", "cat", "/proc/net/route")) {
		if f := strings.Fields(route); len(f) > 1 && f[1] == "00000000" {
			t.Errorf("db has a default route: %s", route)
		}
	}
}

// TestComposeArticleProfiles is "Using profiles": what is for debugging runs only when asked for.
func TestComposeArticleProfiles(t *testing.T) {
	withDatabases(t)
	a := article(t, map[string]string{
		"compose.yaml": `services:
  backend:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
  db:
    image: redis:7-alpine
    stop_signal: SIGKILL
  cli:
    image: redis:7-alpine
    command: sh -c "until redis-cli -h db ping; do sleep 0.1; done >/dev/null 2>&1; redis-cli -h db incr migrations"
    profiles: [tools]
    depends_on: [db]
  debugger:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    profiles: [debug, development]
    depends_on: [backend]
`,
	})
	a.ok(t, "up", "-d")
	if got := a.ok(t, "ps", "--services"); got != "backend\ndb" {
		t.Errorf("without a profile: %q", got)
	}
	// A service that is named is enabled, whatever its profile.
	for want := range 2 {
		if got := a.ok(t, "run", "--rm", "cli"); got != fmt.Sprint(want+1) {
			t.Errorf("run %d: %q", want, got)
		}
	}
	a.env = []string{"COMPOSE_PROFILES=debug"}
	a.ok(t, "up", "-d")
	if got := a.ok(t, "ps", "--services"); got != "backend\ndb\ndebugger" {
		t.Errorf("by the environment: %q", got)
	}
	a.env = nil
	all := strings.Fields(a.ok(t, "--profile", "tools", "--profile", "development", "config", "--services"))
	if slices.Sort(all); !slices.Equal(all, []string{"backend", "cli", "db", "debugger"}) {
		t.Errorf("config: %q", all)
	}
	a.ok(t, "--profile", "debug", "down")
	if left := a.ids(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestComposeArticleSecrets is "Manage secrets": the password is a file that only who needs it
// sees, and is in nobody's environment.
func TestComposeArticleSecrets(t *testing.T) {
	withDatabases(t)
	a := article(t, map[string]string{
		"compose.yaml": `services:
  db:
    image: postgres:16-alpine
    environment:
      POSTGRES_USER: wordpress
      POSTGRES_PASSWORD_FILE: /run/secrets/db_password
    secrets:
      - db_password
    healthcheck:
      test: pg_isready -U wordpress -h 127.0.0.1
      interval: 1s
      retries: 60
  client:
    image: postgres:16-alpine
    entrypoint: ["bash", "-c", "PGPASSWORD=$$(cat /run/secrets/password) exec psql -h db -U wordpress -Atc 'SELECT current_user'"]
    depends_on:
      db: {condition: service_healthy}
    secrets:
      - source: db_password
        target: password
        mode: 0440
    profiles: [client]
  stranger:
    image: busybox
    command: ls /run/secrets
    profiles: [stranger]

secrets:
  db_password:
    file: ./db_password.txt
`,
		"db_password.txt": "correct horse battery staple",
	})
	if got := a.ok(t, "run", "--rm", "client"); got != "wordpress" {
		t.Errorf("with the secret: %q", got)
	}
	if r := a.run(t, "run", "--rm", "stranger"); r.Code == 0 {
		t.Errorf("a stranger sees %q", r.Stdout)
	}
	id := a.ids(t)[a.name+"-db-1"]
	if got := a.e.OK(t, "cleat", "inspect", "-f", "{{.Config.Env}}", id); strings.Contains(got, "horse") {
		t.Errorf("the environment has the secret: %s", got)
	}
	if err := os.WriteFile(filepath.Join(a.dir, "db_password.txt"), []byte("wrong"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := a.run(t, "run", "--rm", "-e", "PGCONNECT_TIMEOUT=10", "client"); r.Code == 0 || !strings.Contains(r.Stdout+r.Stderr, "password authentication failed") {
		t.Errorf("with another secret: %+v", r)
	}
}

// TestComposeArticleShop is a shop of twelve services, as larger articles have it: anchors and
// extensions, a job that runs once before the others, one gateway for all.
func TestComposeArticleShop(t *testing.T) {
	withDatabases(t)
	port := freePort(t)
	apis := []string{"auth", "cart", "catalog", "orders", "payments", "users"}
	var services, locations strings.Builder
	for _, s := range apis {
		fmt.Fprintf(&services, "  %s:\n    <<: *api\n    environment:\n      <<: *settings\n      SERVICE: %s\n", s, s)
		fmt.Fprintf(&locations, "    location /%s { proxy_pass http://%s:8000; }\n", s, s)
	}
	a := article(t, map[string]string{
		"compose.yaml": `x-logging: &logging
  driver: json-file
  options: {max-size: 1m, max-file: "2"}
x-settings: &settings
  CACHE: cache
  DATABASE: shop
x-api: &api
  image: python:3.12-slim
  command: ["python3", "-u", "/srv/api.py"]
  init: true
  volumes: ["./api.py:/srv/api.py:ro"]
  logging: *logging
  restart: unless-stopped
  networks: [inner, outer]
  depends_on:
    migrate: {condition: service_completed_successfully}
    cache: {condition: service_healthy}

services:
  gateway:
    image: nginx:alpine
    ports: ["127.0.0.1:${PORT}:80"]
    configs: [{source: gateway, target: /etc/nginx/conf.d/default.conf}]
    networks: [outer]
    depends_on: [` + strings.Join(apis, ", ") + `, docs]
` + services.String() + `  worker:
    image: redis:7-alpine
    command: bash -c "while redis-cli -h cache incr beats; do sleep 0.2; done"
    init: true
    deploy: {replicas: 2}
    networks: [inner]
    depends_on: {cache: {condition: service_healthy}}
  docs:
    image: busybox
    command: httpd -f -p 8000 -h /www
    init: true
    configs: [{source: docs, target: /www/docs/index.html}]
    networks: [outer]
  migrate:
    image: postgres:16-alpine
    entrypoint: psql -v ON_ERROR_STOP=1 -h db -U postgres -c "CREATE TABLE orders (id int); INSERT INTO orders VALUES (42)"
    environment: {PGPASSWORD: shop}
    networks: [inner]
    depends_on: {db: {condition: service_healthy}}
  db:
    image: postgres:16-alpine
    environment: {POSTGRES_PASSWORD: shop}
    networks: [inner]
    shm_size: 128m
    tmpfs: [/var/lib/postgresql/data]
    healthcheck: {test: [CMD, pg_isready, -h, 127.0.0.1, -U, postgres], interval: 1s, retries: 60, start_period: 60s, start_interval: 200ms}
  cache:
    image: redis:7-alpine
    networks: [inner]
    healthcheck: {test: [CMD, redis-cli, ping], interval: 1s, retries: 60, start_period: 60s, start_interval: 200ms}

networks:
  inner: {internal: true}
  outer:

configs:
  docs: {content: "How to buy in ${SHOP_NAME:-the shop}\n"}
  gateway:
    content: |
      server {
          listen 80;
          server_name 127.0.0.1;
          location /docs { proxy_pass http://docs:8000; }
      ` + strings.ReplaceAll(locations.String(), "\n", "\n      ") + `}
`,
		".env": "PORT=" + port + "\nSHOP_NAME=Knots & Co.\n",
		"api.py": `import http.server, os, socket

class Api(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with socket.create_connection((os.environ["CACHE"], 6379), 10) as s:
            s.sendall(b"INCR " + os.environ["SERVICE"].encode() + b"\r\n")
            hits = s.recv(64).decode().strip()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{os.environ['SERVICE']} {hits} {os.environ['DATABASE']}".encode())

http.server.ThreadingHTTPServer(("", 8000), Api).serve_forever()
`,
	})
	if got := strings.Fields(a.ok(t, "config", "--services")); len(got) != 12 {
		t.Fatalf("%d services: %v", len(got), got)
	}
	a.ok(t, "up", "-d")
	url := "http://127.0.0.1:" + port + "/"
	says(t, a, url+"docs/", "How to buy in Knots & Co.")
	for _, s := range apis {
		says(t, a, url+s, s+" :1 shop")
	}
	if got := a.ok(t, "exec", "-T", "db", "psql", "-U", "postgres", "-Atc", "SELECT id FROM orders"); got != "42" {
		t.Errorf("the job has left %q", got)
	}
	if got := len(strings.Fields(a.ok(t, "ps", "-q"))); got != 12 { // with two workers, without the job
		t.Errorf("%d run", got)
	}
	if got := a.ok(t, "ps", "-a", "migrate", "--format", "{{.State}} {{.ExitCode}}"); got != "exited 0" {
		t.Errorf("the job: %q", got)
	}
	a.ok(t, "stop")
	a.ok(t, "start")
	says(t, a, url+"cart", "cart :")
}
