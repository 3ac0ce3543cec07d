// Package version says what this build is and what it speaks. Its two variables are set by the linker:
//
//	-ldflags "-X github.com/holdfastdb/holdfast/services/version.Holdfast=1.2.3
//	          -X github.com/holdfastdb/holdfast/services/version.GitSHA=$(git rev-parse --short HEAD)"
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// API is the version of etcd's API that Holdfast speaks: what Status, /version and the cluster version report.
const API = "3.7.0"

// ClusterAPI is the version of etcd's cluster: the minor version with patch 0.
const ClusterAPI = "3.7.0"

// Set by the linker; nothing else writes them.
var (
	// Holdfast is the version of this build.
	Holdfast = "0.1.0-dev"
	// GitSHA is the commit of this build; empty if the linker was not told.
	GitSHA = ""
)

// Commit is the commit of this build: what the linker was told, or what the go command noted, or "unknown".
func Commit() string {
	if GitSHA != "" {
		return GitSHA
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

// Text is what --version prints, with etcd's lines after ours.
func Text(program string) string {
	return fmt.Sprintf("%s Version: %s\netcd API Version: %s\nGit SHA: %s\nGo Version: %s\nGo OS/Arch: %s/%s\n",
		program, Holdfast, API, Commit(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
