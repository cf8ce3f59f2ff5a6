package validate

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// each runs a test for every overlay.
func each(t *testing.T, test func(*testing.T, *manifests)) {
	for _, overlay := range []string{"dev", "production"} {
		t.Run(overlay, func(t *testing.T) {
			m, err := render("../overlays/" + overlay)
			if err != nil {
				t.Fatal(err)
			}
			test(t, m)
		})
	}
}

func TestOverlaysAreComplete(t *testing.T) {
	each(t, func(t *testing.T, m *manifests) {
		for what, n := range map[string]int{
			"namespaces": len(m.namespaces) - 2, "deployments": len(m.deployments) - 1, "stateful sets": len(m.statefulSets) - 2, "budgets": len(m.budgets) - 3,
			"autoscalers": len(m.autoscalers) - 1, "scaled objects": len(m.scaled) - 1, "services": len(m.services) - 3, "config maps": len(m.configMaps) - 1,
		} {
			if n != 0 {
				t.Errorf("%s: %+d of those expected", what, n)
			}
		}
	})
}

// Gateways and NATS meet the standard `restricted`; workers meet `baseline`,
// and worker.yaml says what keeps them from more: this, exactly.
func TestPodSecurity(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	difference := []string{
		`unrestricted capabilities: container "worker" must not include "CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID" in securityContext.capabilities.add`,
		`runAsNonRoot != true: container "worker" must not set securityContext.runAsNonRoot=false`,
		`runAsUser=0: container "worker" must not set runAsUser=0`,
	}
	each(t, func(t *testing.T, m *manifests) {
		for _, w := range m.workloads() {
			namespace, _, _ := strings.Cut(w.name, "/")
			level := podsecurity.Level(m.namespaces[namespace].Labels[podsecurity.EnforceLevelLabel])
			var found []string
			for _, r := range evaluator.EvaluatePod(podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}, &w.meta, &w.spec) {
				if !r.Allowed {
					found = append(found, r.ForbiddenReason+": "+r.ForbiddenDetail)
				}
			}
			switch {
			case namespace == "gradefleet" && level == podsecurity.LevelRestricted:
				if len(found) > 0 {
					t.Errorf("%s is not restricted: %s", w.name, strings.Join(found, "; "))
				}
			case namespace == "gradefleet-workers" && level == podsecurity.LevelBaseline:
				for _, r := range evaluator.EvaluatePod(podsecurity.LevelVersion{Level: level, Version: podsecurity.LatestVersion()}, &w.meta, &w.spec) {
					if !r.Allowed {
						t.Errorf("%s is not baseline: %s: %s", w.name, r.ForbiddenReason, r.ForbiddenDetail)
					}
				}
				slices.Sort(found)
				if want := slices.Sorted(slices.Values(difference)); !slices.Equal(found, want) {
					t.Errorf("%s differs from restricted by\n%s\nwant\n%s", w.name, strings.Join(found, "\n"), strings.Join(want, "\n"))
				}
			default:
				t.Errorf("namespace %s enforces %q", namespace, level)
			}
		}
	})
}

// What every container has, whatever it may do.
func TestContainersAreConfined(t *testing.T) {
	each(t, func(t *testing.T, m *manifests) {
		for _, w := range m.workloads() {
			for _, c := range w.spec.Containers {
				s := c.SecurityContext
				if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation {
					t.Errorf("%s: want a read-only root file system and no privilege escalation", w.name)
				}
				if _, ok := c.Resources.Limits[corev1.ResourceMemory]; !ok || len(c.Resources.Requests) < 2 {
					t.Errorf("%s: want a memory limit, and requests of CPU and memory", w.name)
				}
				if c.StartupProbe == nil || c.ReadinessProbe == nil || c.LivenessProbe == nil {
					t.Errorf("%s: want all three probes", w.name)
				}
			}
			if auto := w.spec.AutomountServiceAccountToken; auto == nil || *auto {
				t.Errorf("%s: nothing here talks to Kubernetes, and submissions must not: no token", w.name)
			}
		}
	})
}

// References between objects lead somewhere.
func TestReferences(t *testing.T) {
	each(t, func(t *testing.T, m *manifests) {
		selects := func(namespace string, s *metav1.LabelSelector) (hit []workload) {
			selector, err := metav1.LabelSelectorAsSelector(s)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range m.workloads() {
				if strings.HasPrefix(w.name, namespace+"/") && selector.Matches(labels.Set(w.labels)) {
					hit = append(hit, w)
				}
			}
			return hit
		}
		for _, w := range m.workloads() {
			namespace, _, _ := strings.Cut(w.name, "/")
			if hit := selects(namespace, w.selector); len(hit) != 1 || hit[0].name != w.name {
				t.Errorf("%s selects %d workloads", w.name, len(hit))
			}
			for _, c := range w.spec.Containers {
				for _, p := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
					if p != nil && !hasPort(c, p.HTTPGet.Port) {
						t.Errorf("%s: a probe asks port %s, which the container doesn't have", w.name, p.HTTPGet.Port.String())
					}
				}
				for _, mount := range c.VolumeMounts {
					if !slices.ContainsFunc(w.spec.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name }) && !claims(m, w.name, mount.Name) {
						t.Errorf("%s mounts %s, which is no volume", w.name, mount.Name)
					}
				}
			}
			for _, v := range w.spec.Volumes {
				if v.ConfigMap != nil && m.configMaps[namespace+"/"+v.ConfigMap.Name] == nil {
					t.Errorf("%s: no config map %s", w.name, v.ConfigMap.Name)
				}
			}
		}
		for name, s := range m.services {
			hit := selects(s.Namespace, &metav1.LabelSelector{MatchLabels: s.Spec.Selector})
			if len(hit) != 1 {
				t.Errorf("service %s selects %d workloads, want 1", name, len(hit))
				continue
			}
			for _, p := range s.Spec.Ports {
				if !hasPort(hit[0].spec.Containers[0], p.TargetPort) {
					t.Errorf("service %s: port %s leads to %s, which the container doesn't have", name, p.Name, p.TargetPort.String())
				}
			}
		}
		for name, b := range m.budgets {
			if hit := selects(b.Namespace, b.Spec.Selector); len(hit) != 1 {
				t.Errorf("budget %s selects %d workloads, want 1", name, len(hit))
			}
		}
		for _, s := range m.statefulSets {
			if m.services[s.Namespace+"/"+s.Spec.ServiceName] == nil {
				t.Errorf("stateful set %s: no service %s", s.Name, s.Spec.ServiceName)
			}
		}
		for name, a := range m.autoscalers {
			d := m.deployments[a.Namespace+"/"+a.Spec.ScaleTargetRef.Name]
			if d == nil || d.Spec.Replicas != nil {
				t.Errorf("autoscaler %s: want a deployment %s, without replicas of its own", name, a.Spec.ScaleTargetRef.Name)
			}
		}
		for name, a := range m.scaled {
			s := m.statefulSets[a.Namespace+"/"+a.Spec.ScaleTargetRef.Name]
			if s == nil || s.Spec.Replicas != nil || a.Spec.ScaleTargetRef.Kind != "StatefulSet" {
				t.Errorf("scaled object %s: want a stateful set %s, without replicas of its own", name, a.Spec.ScaleTargetRef.Name)
			}
		}
	})
}

// KEDA looks at the queues that the code uses.
func TestScaledByTheQueue(t *testing.T) {
	source, err := os.ReadFile("../../../shared/protocol/names.go")
	if err != nil {
		t.Fatal(err)
	}
	constant := func(name string) string {
		found := regexp.MustCompile(name + `\s+= "([^"]+)"`).FindSubmatch(source)
		if found == nil {
			t.Fatalf("names.go has no %s", name)
		}
		return string(found[1])
	}
	each(t, func(t *testing.T, m *manifests) {
		triggers := m.scaled["gradefleet-workers/worker"].Spec.Triggers
		consumers := []string{constant("EvaluateConsumer"), constant("BulkConsumer")}
		if len(triggers) != len(consumers) {
			t.Fatalf("%d triggers, want one for each of %v", len(triggers), consumers)
		}
		for i, trigger := range triggers {
			if trigger.Type != "nats-jetstream" || trigger.Metadata["stream"] != constant("JobsStream") || trigger.Metadata["consumer"] != consumers[i] {
				t.Errorf("trigger %d is %s of %v", i, trigger.Type, trigger.Metadata)
			}
		}
	})
}

// Workers reach NATS and name servers, nothing else; nothing else reaches NATS.
func TestNetworkPolicies(t *testing.T) {
	each(t, func(t *testing.T, m *manifests) {
		for _, namespace := range []string{"gradefleet", "gradefleet-workers"} {
			deny := m.policies[namespace+"/default-deny"]
			if deny == nil || len(deny.Spec.PolicyTypes) != 2 || len(deny.Spec.Ingress)+len(deny.Spec.Egress) > 0 || deny.Spec.PodSelector.Size() > 0 {
				t.Errorf("%s: want a policy that allows nothing, for all pods", namespace)
			}
		}
		var reached []string
		for _, p := range m.policies {
			if p.Namespace != "gradefleet-workers" {
				continue
			}
			for _, e := range p.Spec.Egress {
				if len(e.To) == 0 || len(e.Ports) == 0 {
					t.Errorf("%s: a rule without a destination or a port allows everything", p.Name)
				}
				for _, to := range e.To {
					for _, port := range e.Ports {
						reached = append(reached, peer(to)+":"+port.Port.String())
					}
				}
			}
		}
		slices.Sort(reached)
		if want := []string{"gradefleet/nats:4222", "kube-system/kube-dns:53", "kube-system/kube-dns:53"}; !slices.Equal(reached, want) {
			t.Errorf("workers reach %v, want %v", reached, want)
		}
		// Named ports of policies are those of the pods they are for.
		for name, p := range m.policies {
			for _, in := range p.Spec.Ingress {
				for _, port := range in.Ports {
					if port.Port.Type != intstr.String {
						continue
					}
					w := m.workloads()
					i := slices.IndexFunc(w, func(w workload) bool {
						return strings.HasPrefix(w.name, p.Namespace+"/") && w.labels["app.kubernetes.io/name"] == p.Spec.PodSelector.MatchLabels["app.kubernetes.io/name"]
					})
					if i < 0 || !hasPort(w[i].spec.Containers[0], *port.Port) {
						t.Errorf("policy %s: port %s is none of its pods'", name, port.Port)
					}
				}
			}
		}
	})
}

// Every variable is a setting of the binary, and the copies agree everywhere.
func TestEnvironment(t *testing.T) {
	settings, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, m *manifests) {
		replicas := map[string]string{}
		for _, w := range m.workloads() {
			for _, c := range w.spec.Containers {
				for _, e := range c.Env {
					if c.Name != "nats" && !strings.Contains(string(settings), "`"+e.Name+"`") {
						t.Errorf("%s sets %s, which docs/configuration.md doesn't know", w.name, e.Name)
					}
					if strings.Contains(e.Name, "PASSWORD") && e.ValueFrom == nil {
						t.Errorf("%s: %s is no reference to a secret", w.name, e.Name)
					}
					if e.Name == "NATS_REPLICAS" {
						replicas[c.Name] = e.Value
					}
				}
			}
		}
		servers := *m.statefulSets["gradefleet/nats"].Spec.Replicas
		if want := fmt.Sprint(servers); replicas["gateway"] != want || replicas["worker"] != want {
			t.Errorf("copies in JetStream: %v, want %s, one on each NATS server", replicas, want)
		}
		var config string
		for _, c := range m.configMaps {
			config = c.Data["nats.conf"]
		}
		for _, used := range regexp.MustCompile(`\$NATS_[A-Z0-9_]+`).FindAllString(config, -1) {
			if !slices.ContainsFunc(m.statefulSets["gradefleet/nats"].Spec.Template.Spec.Containers[0].Env, func(e corev1.EnvVar) bool { return "$"+e.Name == used }) {
				t.Errorf("nats.conf uses %s, which its container doesn't have", used)
			}
		}
		if clustered := strings.Contains(config, "cluster {"); clustered != (servers > 1) {
			t.Errorf("%d NATS servers, and in a cluster: %v", servers, clustered)
		}
	})
}

func hasPort(c corev1.Container, port intstr.IntOrString) bool {
	return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
		return p.Name == port.StrVal && port.Type == intstr.String || p.ContainerPort == port.IntVal && port.Type == intstr.Int
	})
}

func claims(m *manifests, name, volume string) bool {
	s := m.statefulSets[name]
	return s != nil && slices.ContainsFunc(s.Spec.VolumeClaimTemplates, func(c corev1.PersistentVolumeClaim) bool { return c.Name == volume })
}

func peer(p networkingv1.NetworkPolicyPeer) string {
	var namespace, pod string
	if p.NamespaceSelector != nil {
		namespace = p.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"]
	}
	if p.PodSelector != nil {
		pod = p.PodSelector.MatchLabels["app.kubernetes.io/name"] + p.PodSelector.MatchLabels["k8s-app"]
	}
	return namespace + "/" + pod
}
