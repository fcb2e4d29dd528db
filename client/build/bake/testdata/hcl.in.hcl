variable "TAG" { default = "dev" }
variable "FROM_ENV" { default = "file" }
variable "RELEASE" {
  type = bool
  default = false
}
function "image" {
  params = [name]
  result = "example.com/${name}:${TAG}"
}
group "default" { targets = ["app", "tools"] }
target "_common" {
  args = {
    ENV = FROM_ENV
    NOTHING = null
    LITERAL = "$${not}"
  }
  labels = { up = upper("x") }
  platforms = [BAKE_LOCAL_PLATFORM]
}
target "app" {
  inherits = ["_common"]
  context = "app"
  contexts = { base = "target:base", other = "../x" }
  dockerfile-inline = <<EOT
FROM base
RUN echo hello
EOT
  tags = [image("app"), RELEASE ? image("latest") : ""]
  output = [{ type = "docker" }, "type=local,dest=out"]
  cache-from = ["user/app:cache", { type = "local", src = "cache" }]
  cache-to = [{ type = "inline" }]
  secret = [{ id = "token", env = "TOKEN" }, "id=key,src=key.txt"]
  ssh = ["default", { id = "git", paths = ["k1", "k2"] }]
  attest = [{ type = "provenance", mode = "max" }, "type=sbom,disabled=true"]
  extra-hosts = { db = "10.0.0.1" }
  ulimits = ["nofile=10:20"]
  resources = { memory = "1g" }
  network = "host"
  no-cache-filter = ["a", "a"]
  shm-size = "64m"
  target = "final"
  pull = true
}
target "base" { dockerfile-inline = "FROM busybox" }
target "tools" {
  name = "tool-${item.name}-${v}"
  matrix = {
    item = [{ name = "a" }, { name = "b" }]
    v = ["1", "2"]
  }
  inherits = ["_common"]
  description = "tools of all versions"
  tags = ["tool:${item.name}${v}", target.app.context]
}
