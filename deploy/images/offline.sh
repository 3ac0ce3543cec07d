#!/usr/bin/env bash
# Makes the images of other people's programs without a registry, under the tags that docker-compose.yml names, so that it then runs
# unchanged: offline.sh [--missing] [nats] [jaeger] [haproxy] [prometheus]. Without names it makes all; with --missing, those that the
# engine does not have.
#
# NATS and Jaeger are bin/nats-server and bin/jaeger, which make builds from their Go modules. HAProxy and Prometheus come from Debian
# 12's packages (apt-get fetches them and checks their signatures): the program, the shared libraries that it loads, and nothing else.
# Each program stands at the path that the official image has it at. What differs: Jaeger's Go module has no web page in it, so port
# 16686 serves its query API alone.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# tag NAME: the image of that name in docker-compose.yml.
tag() { sed -n "s|^ *image: \($1:[^ ]*\)\$|\1|p" docker-compose.yml | head -n 1; }

# image NAME ROOT DATA UID ENTRYPOINT: an image of the files in ROOT, with the folder DATA for the user to write in.
image() {
	local name=$1 root=$2 data=$3 uid=$4 entrypoint=$5 full said
	full=$(tag "$name")
	mkdir -p "$work/empty"
	cat >"$work/Dockerfile" <<-EOF
		FROM scratch
		LABEL org.opencontainers.image.version="${full##*:}" org.opencontainers.image.source="made by make images-offline"
		COPY $root /
		COPY --chown=$uid:$uid empty $data
		USER $uid:$uid
		ENTRYPOINT ["$entrypoint"]
	EOF
	said=$(docker build --quiet --tag "$full" "$work" 2>&1) || { echo "$said" >&2; exit 1; }
	echo "$full"
}

# pinned NAME VERSION: stops unless the tag in docker-compose.yml is of that version.
pinned() {
	local full
	full=$(tag "$1")
	case ${full##*:} in
	"$2" | "v$2") ;;
	*)
		echo "docker-compose.yml names $full, but what can be had here is $2: pin the tag to what both can give" >&2
		exit 1
		;;
	esac
}

program() { # FILE PATH: a static program as the only file of a root
	mkdir -p "$work/root/$(dirname "$2")"
	cp "$1" "$work/root/$2"
}

fresh() { rm -rf "$work/root" "$work/debs"; mkdir -p "$work/root" "$work/debs"; }

make_nats() {
	fresh
	pinned nats "$(bin/nats-server --version | sed 's/.*v//')"
	program bin/nats-server nats-server
	image nats root /data 65532 /nats-server
}

# Jaeger numbers its Go module 1.N and what it releases 2.(N-63).
make_jaeger() {
	local module
	module=$(sed -n 's|.*github.com/jaegertracing/jaeger v1\.\([0-9]*\)\.\([0-9]*\).*|\1 \2|p' tools/jaeger/go.mod | head -n 1)
	fresh
	pinned jaegertracing/jaeger "2.$((${module% *} - 63)).${module#* }"
	program bin/jaeger cmd/jaeger/jaeger-linux
	image jaegertracing/jaeger root /tmp 10001 /cmd/jaeger/jaeger-linux
}

# unpack PACKAGE...: the packages and all libraries that they depend on, unpacked into $work/all.
unpack() {
	command -v apt-get >/dev/null || { echo "images-offline takes $1 from Debian's packages: run it on Debian 12" >&2; exit 1; }
	rm -rf "$work/all"; mkdir -p "$work/all"
	local names
	names=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$@" |
		grep -E '^(lib|gcc-)[^<]*$' | sort -u)
	# Libraries of several names for one need are alternatives, not all of which exist; of scripts for web pages none is loaded.
	names=$(apt-cache policy "$@" $names | awk '/^[^ ]/ {name = $1; sub(":$", "", name)} /^  Candidate:/ && $2 != "(none)" && name !~ /^libjs-/ {print name}')
	# shellcheck disable=SC2086 # one name a word
	(cd "$work/debs" && apt-get download -qq -o APT::Sandbox::User=root $names)
	for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/all"; done
}

version_of() { dpkg-deb -f "$work"/debs/"$1"_*.deb Version | sed 's/^[0-9]*://; s/[-+].*//'; }

# take PROGRAM PATH: the program and the libraries that its own loader says it needs, from $work/all into the root.
take() {
	local all=$work/all loader=$work/all/lib64/ld-linux-x86-64.so.2 paths libraries
	[ -e "$loader" ] || loader=$(find "$all" -name 'ld-linux-*.so.*' | head -n 1)
	paths=$(find "$all" -name '*.so*' -exec dirname {} + | sort -u | paste -sd: -)
	# The loader looks in /usr/lib of the machine's name.
	libraries=$work/root/usr/lib/$(basename "$(find "$all" -name libc.so.6 -exec dirname {} + | head -n 1)")
	mkdir -p "$work/root/$(dirname "$2")" "$work/root/lib64" "$libraries"
	cp "$all/$1" "$work/root/$2"
	"$loader" --library-path "$paths" --list "$all/$1" | sed -n 's|.*=> \(/[^ ]*\) .*|\1|p' | while read -r library; do
		case $library in
		"$all"/*) ;;
		*) echo "$1 needs $library, which no package that was unpacked has" >&2; exit 1 ;;
		esac
		cp -L "$library" "$libraries/"
	done
	cp -L "$loader" "$work/root/lib64/"
}

make_haproxy() {
	fresh
	unpack haproxy
	pinned haproxy "$(version_of haproxy)"
	take usr/sbin/haproxy usr/local/sbin/haproxy
	image haproxy root /var/lib/haproxy 99 /usr/local/sbin/haproxy
}

make_prometheus() {
	fresh
	unpack prometheus
	pinned prom/prometheus "$(version_of prometheus)"
	take usr/bin/prometheus bin/prometheus
	image prom/prometheus root /prometheus 65534 /bin/prometheus
}

missing=
[ "${1:-}" != --missing ] || { missing=1; shift; }
[ $# -gt 0 ] || set -- nats jaeger haproxy prometheus
for name; do
	full=$(sed -n "s|^ *image: \(\([a-z]*/\)\{0,1\}$name:[^ ]*\)\$|\1|p" docker-compose.yml | head -n 1)
	if [ -n "$missing" ] && docker image inspect "$full" >/dev/null 2>&1; then
		echo "$full is there"
	else
		"make_$name"
	fi
done
