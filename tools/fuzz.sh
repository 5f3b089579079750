#!/usr/bin/env bash
# Runs every fuzz target in turn, or those that are named. FUZZTIME is the time for each; without it
# FUZZBUDGET seconds (default 45) are shared out among all of them.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t targets < <(grep -rHoE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' internal cmd test 2>/dev/null | sed 's/func //' | sort)
if [ $# -gt 0 ]; then
	mapfile -t targets < <(printf '%s\n' "${targets[@]}" | grep -E ":($(IFS='|' && echo "$*"))\$")
fi
if [ ${#targets[@]} -eq 0 ]; then
	echo 'no fuzz targets'
	exit 0
fi
each=${FUZZTIME:-}
if [ -z "$each" ]; then
	seconds=$((${FUZZBUDGET:-45} / ${#targets[@]}))
	each=$((seconds < 1 ? 1 : seconds > 5 ? 5 : seconds))s
fi

run() { go test -run '^$' -fuzz "^$2\$" -fuzztime "$each" -parallel 2 "./$1"; }

for target in "${targets[@]}"; do
	package=$(dirname "${target%%:*}") name=${target##*:}
	if output=$(run "$package" "$name" 2>&1); then
		echo "fuzz $package $name $each: ok"
		continue
	fi
	# The fuzzing engine sometimes reports its own deadline as a failure
	# (golang.org/issue/75804); an input that fails is named in the output.
	if grep -q 'context deadline exceeded' <<<"$output" && ! grep -q 'Failing input' <<<"$output" && run "$package" "$name"; then
		continue
	fi
	printf '%s\n' "$output"
	exit 1
done
