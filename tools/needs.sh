#!/usr/bin/env bash
# Makes sure that the programs the tests drive are there. Root on Debian or
# Ubuntu gets them installed; anybody else is told what is missing, and the
# tests that need it are skipped with that reason.
set -euo pipefail

# program:package, the real clients first.
wanted=(
	git:git curl:curl wget:wget python3:python3 pip3:python3-pip node:nodejs npm:npm java:default-jre-headless keytool:default-jre-headless
	openssl:openssl gcc:gcc make:make ip:iproute2 ps:procps runuser:util-linux useradd:passwd
	mmdebstrap:mmdebstrap systemd-nspawn:systemd-container
)

missing=()
for pair in "${wanted[@]}"; do
	command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
# Whichever python3 comes first in PATH is the one that the tests run.
python3 -c 'import requests' 2>/dev/null || missing+=(python3-requests)
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
git --exec-path >/dev/null 2>&1 && [ -x "$(git --exec-path)/git-http-backend" ] || missing+=(git)

# Clients that have no package here come from their own registry, into a folder
# that is nobody's but the tests'.
clients=(openai==3.54.0 boto3==1.44.5)
modules() {
	local stamp=bin/python/.complete
	[ "$(cat "$stamp" 2>/dev/null)" = "${clients[*]}" ] && return 0
	rm -rf bin/python
	if python3 -m pip install -q --no-compile --target bin/python "${clients[@]}" </dev/null; then
		echo "${clients[*]}" >"$stamp"
	else
		echo 'missing: the Python modules openai and boto3; tests with them are skipped'
	fi
}

if [ ${#missing[@]} -eq 0 ]; then
	modules
	exit 0
fi
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq </dev/null
	apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
	# A python3 that is not the system's own does not see Debian's modules.
	python3 -c 'import requests' 2>/dev/null || python3 -m pip install -q requests </dev/null
	modules
	exit 0
fi
echo "missing: ${missing[*]}"
echo "as root on Debian or Ubuntu: apt-get install ${missing[*]}"
