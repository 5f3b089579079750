#!/usr/bin/env bash
# Everything that CI tests, in the order in which it fails fastest. Called by
# `make test`, which has built ./agentcage and bin/skipcheck.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
summary=$root/bin/test-summary
totals=$(mktemp -d)
user='' home=''

cleanup() {
	rm -rf "$totals"
	if [ -n "$user" ]; then
		userdel -r "$user" >/dev/null 2>&1 || true
	fi
}
trap cleanup EXIT

export AGENTCAGE_BIN=$root/agentcage AGENTCAGE_PYTHON=$root/bin/python
race=()
if command -v gcc >/dev/null; then race=(-race); else echo 'no gcc: unit tests run without the race detector'; fi
unit() { go list ./... | grep -v '/test/e2e' || true; }
# What makes namespaces and filters is tested as it is shipped, too: cgo has
# threads and a start-up of its own.
static() { go list ./... | grep -E '/test/e2e|/internal/(backend|confine|cli|demo|worker|inspect/external/python)(/|$)' || true; }

echo '--- go vet'
go vet ./...
(cd tools && go vet ./skipcheck/...)
(cd bench && go vet ./...)

echo "--- unit tests ${race[*]}"
mapfile -t packages < <(unit)
(
	export CGO_ENABLED=$([ ${#race[@]} -gt 0 ] && echo 1 || echo 0)
	go test "${race[@]}" -timeout 10m -json "${packages[@]}" | bin/skipcheck -total "$totals/unit"
)
export CGO_ENABLED=0
# Of the fuzz targets the one that plays all of the gateway also searches here:
# what it would find is a secret in the hands of an agent.
FUZZTIME=60s tools/fuzz.sh FuzzSecrets
(cd tools && go test -json ./skipcheck/...) | bin/skipcheck -total "$totals/tools"
(cd bench && go test -json ./...) | bin/skipcheck -total "$totals/bench"

mapfile -t packages < <(static)
if [ ${#packages[@]} -gt 0 ]; then
	echo "--- end to end and without cgo, as $(id -un)"
	go test -timeout 10m -count 1 -json "${packages[@]}" | bin/skipcheck -total "$totals/e2e"
fi

# What root can do proves little about an ordinary user: everything once more
# as one, from a home directory of its own, since this tree may be unreadable.
if [ "$(id -u)" = 0 ]; then
	user=agentcage-test-$$
	useradd --create-home --shell /bin/bash "$user"
	home=$(getent passwd "$user" | cut -d: -f6)
	chmod 755 "$home"
	echo "--- all tests as an ordinary user ($user)"
	mkdir "$home/src" "$home/bin"
	git ls-files -z -co --exclude-standard | while IFS= read -r -d '' file; do
		if [ -e "$file" ]; then printf '%s\0' "$file"; fi
	done | tar --null -T - -cf - | tar -xf - -C "$home/src"
	cp agentcage bin/skipcheck "$home/bin/"
	if [ -d bin/python ]; then cp -r bin/python "$home/bin/python"; fi
	go build -trimpath -buildvcs=false -o "$home/bin/test2json" cmd/test2json
	go build -trimpath -buildvcs=false -o "$home/bin/probe" ./internal/cage/cagetest/probe
	# The user has no module cache: test binaries are built here and run there.
	mkdir "$home/tests"
	go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}' ./... | sed '/^$/d' |
		while read -r package dir; do
			name=$(tr / _ <<<"${package#github.com/agentcage/agentcage/}")
			go test -c -trimpath -buildvcs=false -o "$home/tests/$name.test" "$package"
			echo "$package ${dir#"$root"} $name" >>"$home/tests/list"
		done
	chown -R "$user": "$home"
	runuser -u "$user" -- env -i HOME="$home" USER="$user" LOGNAME="$user" LANG=C.UTF-8 \
		PATH="$home/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$(go env GOROOT)/bin" \
		AGENTCAGE_BIN="$home/bin/agentcage" AGENTCAGE_PROBE="$home/bin/probe" AGENTCAGE_PYTHON="$home/bin/python" CGO_ENABLED=0 bash -c '
		set -euo pipefail
		cd "$HOME"
		while read -r package dir name; do
			(cd "src$dir" && test2json -t -p "$package" "$HOME/tests/$name.test" -test.v=test2json -test.timeout 10m) || true
		done <tests/list | skipcheck -total "$HOME/total"
	' </dev/null
	cp "$home/total" "$totals/user"
fi

awk '{ passed += $1; failed += $3; skipped += $5 } END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$totals"/* |
	tee "$summary"
