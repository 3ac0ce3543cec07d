// Package e2e holds one suite of what clients may ask, through clientv3, etcdctl and bare gRPC, and runs it on every
// runtime, real etcd included: what fails there is wrong in the suite. What may differ between etcd and Holdfast stands in
// differences_test.go and nowhere else.
package e2e

import (
	"context"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/holdfastdb/holdfast/tests/framework"
)

var runtimeFlag = flag.String("runtime", "", "run the suite on this runtime alone: etcd, standalone, standalone-cluster or split")

func TestMain(m *testing.M) {
	os.Exit(framework.Main(m, append(framework.SplitPrograms(), "holdfast", "etcd", "etcdctl", "etcdutl")...))
}

// system is what a case asks.
type system struct {
	*framework.Cluster
	client *clientv3.Client
	// oracle tells that this is etcd itself.
	oracle bool
}

// testCase is one thing that clients may ask.
type testCase struct {
	name string
	run  func(t *testing.T, s *system)
	// patient cases wait for time to pass, and run beside each other when the others are done. They must not care for
	// what others write.
	patient bool
}

// notifyInterval is how often idle watches that asked for it are told of progress.
const notifyInterval = time.Second

func TestSuite(t *testing.T) {
	cases := slices.Concat(kvCases(), txnCases(), errorCases(), watchCases(), watchStreamCases(), watchEdgeCases(), leaseCases(), memberCases(), streamCases(), etcdctlCases(), alarmCases())
	for _, runtime := range framework.Runtimes() {
		if *runtimeFlag != "" && *runtimeFlag != runtime.Name {
			continue
		}
		t.Run(runtime.Name, func(t *testing.T) {
			c := runtime.Start(t, framework.Options{Args: []string{"--watch-progress-notify-interval", notifyInterval.String()}})
			s := &system{Cluster: c, client: c.Client(t), oracle: runtime.Oracle}
			for _, one := range cases {
				t.Run(one.name, func(t *testing.T) {
					if one.patient {
						t.Parallel()
					}
					one.run(t, s)
				})
			}
		})
	}
}

// timeout bounds each case.
const timeout = 10 * time.Second

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// key is a key that no other case uses.
func key(t *testing.T, suffix string) string {
	t.Helper()
	return strings.ReplaceAll(t.Name(), "/", ".") + "/" + suffix
}
