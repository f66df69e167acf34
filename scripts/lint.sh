#!/usr/bin/env bash
# Runs golangci-lint, built into bin/ the first time (about two minutes).
set -euo pipefail
cd "$(dirname "$0")/.."

version=v2.15.0
lint=bin/golangci-lint-$version
if [ ! -x "$lint" ]; then
	echo "lint: building golangci-lint $version into bin/"
	mkdir -p bin
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	GOBIN=$tmp go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
	mv "$tmp/golangci-lint" "$lint"
fi
exec "$lint" run ./...
