package services_test

import (
	"testing"

	"github.com/holdfastdb/holdfast/services/deptest"
)

func TestImports(t *testing.T) {
	const ours = "github.com/holdfastdb/holdfast"
	deptest.Check(
		t, ".",
		deptest.Rule{
			Import: ours, Except: []string{ours + "/services", ours + "/proto"},
			Because: "services is what every service is made of and knows none of them",
		},
		deptest.Rule{
			Import: "github.com/nats-io", Allowed: []string{"bus"},
			Because: "the bus hides which message system is behind it, so that one suite can hold for all",
		},
		deptest.Rule{
			Import:  "github.com/nats-io/nats-server",
			Because: "a service is a client of the bus; only what deploys Holdfast starts servers",
		},
		deptest.Rule{
			Import: "go.opentelemetry.io/otel/sdk", Allowed: []string{"telemetry"},
			Because: "code makes spans through the API, so that tracing is free when it is off",
		},
		deptest.Rule{
			Import: "go.opentelemetry.io/otel/exporters", Allowed: []string{"telemetry"},
			Because: "where traces go is decided in one place",
		},
		deptest.Rule{
			Import: "github.com/spf13/pflag", Allowed: []string{"config"},
			Because: "the packages that do the work get values, not flags",
		},
		deptest.Rule{
			Import:  "go.etcd.io/etcd/server",
			Because: "Holdfast is not etcd's server; it speaks its API (go.etcd.io/etcd/api)",
		},
	)
}
