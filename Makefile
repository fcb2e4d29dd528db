# Everything needs only Go and, for what runs containers, root on Linux.
GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  = -s -w -X main.version=$(VERSION)
export CGO_ENABLED = 0

.PHONY: all build quickstart test test-unit test-e2e bench lint install clean

all: build

build: ## bin/cleatd, bin/cleat, bin/cleat-registry
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/cleatd ./cmd/cleat ./cmd/cleat-registry

quickstart: build ## from nothing to nginx on port 8080, then cleaned up again
	./quickstart

test: ## everything: lint, unit tests, end-to-end tests; needs root
	./test/run

test-unit: ## tests of the packages
	$(GO) test ./internal/... ./client/... ./registryserver/... ./cmd/... ./test/house/...

test-e2e: build ## tests with real clients and real programs
	$(GO) test -count=1 -timeout 25m ./test/e2e/...

bench: build ## medians, and ratios against the other engines that are installed
	./test/bench/run

lint:
	@unformatted=$$(gofmt -l cmd client internal images registryserver test); if [ -n "$$unformatted" ]; then echo "not gofmt-ed: $$unformatted"; exit 1; fi
	$(GO) vet ./...

install: build ## cleatd, cleat, cleat-registry into $(PREFIX)/bin
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 bin/cleatd bin/cleat bin/cleat-registry $(DESTDIR)$(PREFIX)/bin

clean:
	rm -rf bin
