package config

import (
	"os"

	"github.com/holdfastdb/holdfast/services/failure"
)

// HostName is the host's name, for a flag that stands for it when it is empty. The error names the flag and is of kind
// failure.Config.
func HostName(flag string) (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", failure.Wrap(failure.Config, flag+" is empty and the host has no name: give it", err)
	}
	return host, nil
}
