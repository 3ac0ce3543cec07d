// Package manifests checks what others read. It builds deploy/kubernetes as `kubectl apply -k` does, and decodes each object strictly into the type that
// Kubernetes itself has for it: a field that does not exist, or is written twice, fails. It also holds what the objects must agree on.
package manifests

import (
	"bytes"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const folder = "../../deploy/kubernetes"

// objects are all that is applied, decoded.
func objects(t *testing.T) []runtime.Object {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, autoscalingv2.AddToScheme, policyv1.AddToScheme, networkingv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	var list []runtime.Object
	for _, resource := range built.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		object, _, err := decoder.Decode(text, nil, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		list = append(list, object)
	}
	return list
}

// workload is what runs pods.
type workload struct {
	name     string
	replicas int32 // 0: the autoscaler's
	template corev1.PodTemplateSpec
}

func workloads(list []runtime.Object) map[string]workload {
	found := map[string]workload{}
	add := func(name string, replicas *int32, template corev1.PodTemplateSpec) {
		w := workload{name: name, template: template}
		if replicas != nil {
			w.replicas = *replicas
		}
		found[name] = w
	}
	for _, object := range list {
		switch o := object.(type) {
		case *appsv1.Deployment:
			add(o.Name, o.Spec.Replicas, o.Spec.Template)
		case *appsv1.StatefulSet:
			add(o.Name, o.Spec.Replicas, o.Spec.Template)
		}
	}
	return found
}

func TestManifests(t *testing.T) {
	list := objects(t)
	all := workloads(list)
	names := slices.Sorted(maps.Keys(all))
	if want := []string{"consensus", "lease-service", "nats", "proxy", "watch-hub"}; !slices.Equal(names, want) {
		t.Fatalf("workloads are %v, not %v", names, want)
	}
	selects := func(what string, selector *metav1.LabelSelector) int {
		s, err := metav1.LabelSelectorAsSelector(selector)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, w := range all {
			if s.Matches(labels.Set(w.template.Labels)) {
				n++
			}
		}
		if n == 0 {
			t.Errorf("%s selects nobody", what)
		}
		return n
	}
	budgets, scaled := map[string]bool{}, map[string]bool{}
	for _, object := range list {
		switch o := object.(type) {
		case *policyv1.PodDisruptionBudget:
			selects("budget "+o.Name, o.Spec.Selector)
			budgets[o.Name] = true
		case *corev1.Service:
			selects("service "+o.Name, &metav1.LabelSelector{MatchLabels: o.Spec.Selector})
		case *networkingv1.NetworkPolicy:
			selects("policy "+o.Name, &o.Spec.PodSelector)
		case *autoscalingv2.HorizontalPodAutoscaler:
			if all[o.Spec.ScaleTargetRef.Name].replicas != 0 {
				t.Errorf("%s has a number of replicas and an autoscaler", o.Name)
			}
			scaled[o.Spec.ScaleTargetRef.Name] = true
		}
	}
	if !scaled["proxy"] || !scaled["watch-hub"] {
		t.Errorf("scaled are %v", scaled)
	}
	for name, w := range all {
		if !budgets[name] {
			t.Errorf("%s has no disruption budget", name)
		}
		checkPod(t, w)
	}
	if all["consensus"].replicas != 3 {
		t.Errorf("consensus has %d replicas", all["consensus"].replicas)
	}
}

// checkPod: no root, nothing to write but volumes, probed and bounded.
func checkPod(t *testing.T, w workload) {
	t.Helper()
	pod := w.template.Spec
	if s := pod.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot {
		t.Errorf("%s may run as root", w.name)
	}
	for _, c := range pod.Containers {
		s := c.SecurityContext
		if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation {
			t.Errorf("%s may write to its image, or gain privileges", w.name)
		}
		if c.ReadinessProbe == nil || c.LivenessProbe == nil {
			t.Errorf("%s is not probed", w.name)
		}
		if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
			t.Errorf("%s has no bounds", w.name)
		}
		ports := map[string]bool{}
		for _, p := range c.Ports {
			ports[p.Name] = true
		}
		for _, probe := range []*corev1.Probe{c.ReadinessProbe, c.LivenessProbe} {
			if probe != nil && !ports[probe.HTTPGet.Port.StrVal] {
				t.Errorf("%s is probed at %s, a port that it does not have", w.name, probe.HTTPGet.Port.StrVal)
			}
		}
	}
}

// TestConsensusMembers: the list of members names each pod of the StatefulSet, under the name of its headless service.
func TestConsensusMembers(t *testing.T) {
	w := workloads(objects(t))["consensus"]
	env := map[string]string{}
	for _, e := range w.template.Spec.Containers[0].Env {
		env[e.Name] = e.Value
	}
	members := strings.Split(env["ETCD_INITIAL_CLUSTER"], ",")
	if len(members) != int(w.replicas) {
		t.Fatalf("%d members of %d", len(members), w.replicas)
	}
	for i, m := range members {
		name := "consensus-" + string(rune('0'+i))
		want := name + "=" + strings.ReplaceAll(env["ETCD_INITIAL_ADVERTISE_PEER_URLS"], "$(ETCD_NAME)", name)
		if m != want {
			t.Errorf("member %d is %s, but its pod says %s", i, m, want)
		}
	}
}

// TestSameBus: the servers are configured as those of docker-compose.
func TestSameBus(t *testing.T) {
	here, err := os.ReadFile(folder + "/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	there, err := os.ReadFile("../../deploy/nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(here, there) {
		t.Error("deploy/kubernetes/nats.conf differs from deploy/nats/nats.conf")
	}
}
