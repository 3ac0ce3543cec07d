#!/usr/bin/env bash
# Makes the images of our programs from the binaries in bin/: ours.sh SERVICE...
# Each is tagged holdfast/SERVICE:dev and holdfast/SERVICE:VERSION. No registry is asked for anything.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=${VERSION:-$(bin/holdfast --version | sed -n 's/^holdfast Version: //p')}
revision=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir "$context/data"
for service; do
	ln -f "bin/$service" "$context/service" 2>/dev/null || cp "bin/$service" "$context/service"
	# `+` is no letter of a tag.
	said=$(docker build --quiet --file deploy/images/Dockerfile \
		--build-arg SERVICE="$service" --build-arg VERSION="$version" --build-arg REVISION="$revision" \
		--tag "holdfast/$service:dev" --tag "holdfast/$service:${version//+/-}" "$context" 2>&1) ||
		{ echo "$said" >&2; exit 1; }
	echo "holdfast/$service:dev"
done
