# Reads go.mod files; fails where two of them require different versions of one module.
# A workspace builds all modules with the highest version, so a difference would mean
# that a module alone is not what was tested.

{ sub(/\/\/.*/, "") }
/^require[ \t]*\(/ { inside = 1; next }
/^\)/              { inside = 0; next }
/^require[ \t]/    { note($2, $3); next }
inside && NF >= 2  { note($1, $2) }

function note(module, version) {
	if (version == "v0.0.0") return # our own, from the folder beside
	if (!(module in first)) {
		first[module] = version
		where[module] = FILENAME
	} else if (first[module] != version) {
		printf "%s: %s in %s, %s in %s\n", module, first[module], where[module], version, FILENAME > "/dev/stderr"
		differ = 1
	}
}

END {
	if (differ) {
		print "one version of each module across the workspace: `make tidy` brings them together" > "/dev/stderr"
		exit 1
	}
}
