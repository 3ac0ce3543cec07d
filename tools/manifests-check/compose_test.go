package manifests

import (
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// TestComposeFile: Compose 2 takes the file, by its own loader and schema (make compose-check asks Compose 1.29), and each service of it
// runs without root, with a root file system that is read only, bounded, probed, and published on the loopback alone.
func TestComposeFile(t *testing.T) {
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: "../..", ConfigFiles: []types.ConfigFile{{Filename: "../../docker-compose.yml"}},
	}, func(o *loader.Options) {
		o.SetProjectName("holdfast", true)
		o.Profiles = []string{"*"}
	})
	if err != nil {
		t.Fatal(err)
	}
	names := project.ServiceNames()
	slices.Sort(names)
	want := []string{
		"consensus-1", "consensus-2", "consensus-3", "grafana", "haproxy", "jaeger", "lease-service", "nats", "nats-2", "nats-3",
		"prometheus", "proxy", "watch-hub",
	}
	if !slices.Equal(names, want) {
		t.Errorf("services are %v", names)
	}
	for name, s := range project.Services {
		if uid, _, _ := strings.Cut(s.User, ":"); uid == "" || uid == "0" {
			t.Errorf("%s runs as root", name)
		}
		if !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") || len(s.SecurityOpt) == 0 {
			t.Errorf("%s may do more than it needs", name)
		}
		if s.MemLimit == 0 || s.PidsLimit == 0 || s.Restart == "" || s.HealthCheck == nil {
			t.Errorf("%s is not bounded, restarted or probed", name)
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s is published on %q", name, p.HostIP)
			}
		}
		if image, tag, ok := strings.Cut(s.Image, ":"); !ok || tag == "latest" || strings.HasPrefix(image, "holdfast/") != (tag == "dev") {
			t.Errorf("%s has the image %s", name, s.Image)
		}
	}
}
