# make          builds build/mainstay
# make test     brings in the peers that tests talk to, then runs every test with the race detector
# make lint     gofmt, go vet, staticcheck
# make soak     the long tests and a minute of fuzzing for each parser
# make chaos    half an hour an engine of everything at once; CHAOSTIME=5m is less
# make agreement  an hour an engine of requests that net/http, nginx and HAProxy must understand alike; AGREETIME=5m is less
# make vm       boots a virtual machine and looks there at limits, the clock and process 1
# make bench    benchmarks; they print, they do not judge
# make bench-proxy  the proxy beside nginx, HAProxy, Caddy, Traefik and Go's ReverseProxy; BENCH=-quick takes less than a minute

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 60s
CHAOSTIME ?= 30m
AGREETIME ?= 1h

.PHONY: build test lint soak chaos agreement vm fuzz bench bench-processes bench-proxy peers clean
.DEFAULT_GOAL := build

build:
	CGO_ENABLED=0 go build -trimpath -ldflags "-X mainstay/cli.version=$(VERSION)" -o build/mainstay .

# Debian packages, the S3 and the gRPC server. What cannot be installed is missing, and its tests
# say that they were skipped; under CI=true they fail instead.
peers:
	testdata/peers/install

test: peers
	go build -race ./...
	go test -race -p 1 -timeout 9m ./... # a package at a time: one's load is not what another's tests about time should see
	PROXY_ENGINE=net_http go test -race -timeout 9m -skip '^(TestFraming|TestDifferential|TestAgreement)$$' ./proxy # those have both engines

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	go tool -modfile=tools/go.mod staticcheck ./...

vm:
	testdata/vm/install
	MAINSTAY_VM=1 go test -run '^TestVM$$' -count=1 .

soak: peers fuzz
	testdata/vm/install
	MAINSTAY_SOAK=1 go test -race -timeout 2h ./...

# Without the race detector, which would be most of what is measured. make soak has both for a shorter time.
chaos: peers
	MAINSTAY_SOAK=1 MAINSTAY_SOAK_TIME=$(CHAOSTIME) go test -run '^(TestChaos|TestSlowClients|TestIdleConnections|TestDescriptorLimit)$$' -count=1 -timeout 6h -v .

agreement: peers
	MAINSTAY_SOAK=1 MAINSTAY_SOAK_TIME=$(AGREETIME) go test -run '^TestAgreement$$' -count=1 -timeout 12h -v ./proxy

# Go runs one fuzz target at a time.
fuzz:
	@for file in $$(grep -rl --include='*_test.go' '^func Fuzz' .); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$file); do \
			echo "$$target in $$(dirname $$file)"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) ./$$(dirname $$file) || exit 1; \
		done; \
	done

bench:
	go test -run '^$$' -bench . -benchmem ./...

bench-processes: build
	bench/processes

bench-proxy:
	go run ./bench/proxy $(BENCH)

clean:
	rm -rf build
