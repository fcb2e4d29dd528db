# Everything needs only Go and, for what runs containers, root on Linux.
GO      ?= go
PREFIX  ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  = -s -w -X main.version=$(VERSION)
PROGRAMS = cleatd cleat cleat-build cleat-bake cleat-compose cleat-registry
INSTALLED_DIRS = lib/systemd/system lib/sysusers.d share/bash-completion/completions share/zsh/site-functions share/fish/vendor_completions.d
export CGO_ENABLED = 0

.PHONY: all build quickstart test test-unit test-e2e bench lint install uninstall clean

all: build

build: ## the programs, in bin/
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ $(addprefix ./cmd/,$(PROGRAMS))

quickstart: build ## from nothing to nginx on port 8080, then cleaned up again
	./quickstart

test: ## everything: lint, unit tests, end-to-end tests; needs root
	./test/run

test-unit: ## tests of the packages
	$(GO) test ./internal/... ./client/... ./registryserver/... ./cmd/... ./test/house/...

test-e2e: build ## tests with real clients and real programs
	$(GO) test -count=1 -timeout 60m ./test/e2e/...

bench: build ## medians, and ratios against the other engines that are installed
	./test/bench/run

lint:
	@unformatted=$$(gofmt -l cmd client internal images registryserver registrytrust test); if [ -n "$$unformatted" ]; then echo "not gofmt-ed: $$unformatted"; exit 1; fi
	$(GO) vet ./...

install: build ## programs, systemd units and shell completions below $(PREFIX), the AppArmor profile in $(SYSCONFDIR)
	install -d $(DESTDIR)$(PREFIX)/bin $(addprefix $(DESTDIR)$(PREFIX)/,$(INSTALLED_DIRS))
	install -m 755 $(addprefix bin/,$(PROGRAMS)) $(DESTDIR)$(PREFIX)/bin
	for unit in cleat.service cleat-containers.service; do sed 's|@PREFIX@|$(PREFIX)|' packaging/systemd/$$unit > $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit; done
	install -m 644 packaging/systemd/cleat.socket $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 644 packaging/systemd/cleat.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/cleat.conf
	install -D -m 644 packaging/apparmor/cleat-default $(DESTDIR)$(SYSCONFDIR)/apparmor.d/cleat-default
	@if [ "$(DESTDIR)$(SYSCONFDIR)" = /etc ] && [ -e /sys/kernel/security/apparmor/.replace ] && command -v apparmor_parser >/dev/null; then apparmor_parser -r -W /etc/apparmor.d/cleat-default; fi
	bin/cleat completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/cleat
	bin/cleat completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_cleat
	bin/cleat completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/cleat.fish

uninstall: ## what install has put there; images and containers stay
	cd $(DESTDIR)$(PREFIX) && rm -f $(addprefix bin/,$(PROGRAMS)) lib/systemd/system/cleat.service lib/systemd/system/cleat-containers.service lib/systemd/system/cleat.socket \
		lib/sysusers.d/cleat.conf share/bash-completion/completions/cleat share/zsh/site-functions/_cleat share/fish/vendor_completions.d/cleat.fish
	rm -f $(DESTDIR)$(SYSCONFDIR)/apparmor.d/cleat-default

clean:
	rm -rf bin
