// Package validate holds the Kubernetes manifests against what they talk of: the
// types of Kubernetes and KEDA, the Pod Security standards, each other, and the
// settings of the binaries. It has only tests, and what they need.
package validate

import (
	"bytes"
	"fmt"
	"strings"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// manifests are what an overlay renders to, by kind.
type manifests struct {
	text         string
	namespaces   map[string]*corev1.Namespace
	services     map[string]*corev1.Service
	configMaps   map[string]*corev1.ConfigMap
	deployments  map[string]*appsv1.Deployment
	statefulSets map[string]*appsv1.StatefulSet
	budgets      map[string]*policyv1.PodDisruptionBudget
	policies     map[string]*networkingv1.NetworkPolicy
	autoscalers  map[string]*autoscalingv2.HorizontalPodAutoscaler
	scaled       map[string]*kedav1alpha1.ScaledObject
}

// workload is a set of pods.
type workload struct {
	name     string // namespace/name
	labels   map[string]string
	selector *metav1.LabelSelector
	spec     corev1.PodSpec
	meta     metav1.ObjectMeta
}

// render builds a directory as kubectl apply -k does, and decodes each object
// strictly: a field that its kind doesn't have is an error.
func render(dir string) (*manifests, error) {
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", dir, err)
	}
	text, err := resources.AsYaml()
	if err != nil {
		return nil, err
	}
	m := &manifests{
		text: string(text), namespaces: map[string]*corev1.Namespace{}, services: map[string]*corev1.Service{}, configMaps: map[string]*corev1.ConfigMap{},
		deployments: map[string]*appsv1.Deployment{}, statefulSets: map[string]*appsv1.StatefulSet{}, budgets: map[string]*policyv1.PodDisruptionBudget{},
		policies: map[string]*networkingv1.NetworkPolicy{}, autoscalers: map[string]*autoscalingv2.HorizontalPodAutoscaler{}, scaled: map[string]*kedav1alpha1.ScaledObject{},
	}
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var head metav1.TypeMeta
		if err := yaml.Unmarshal(document, &head); err != nil {
			return nil, err
		}
		switch kind := head.APIVersion + " " + head.Kind; kind {
		case "v1 Namespace":
			err = decode(document, m.namespaces)
		case "v1 Service":
			err = decode(document, m.services)
		case "v1 ConfigMap":
			err = decode(document, m.configMaps)
		case "apps/v1 Deployment":
			err = decode(document, m.deployments)
		case "apps/v1 StatefulSet":
			err = decode(document, m.statefulSets)
		case "policy/v1 PodDisruptionBudget":
			err = decode(document, m.budgets)
		case "networking.k8s.io/v1 NetworkPolicy":
			err = decode(document, m.policies)
		case "autoscaling/v2 HorizontalPodAutoscaler":
			err = decode(document, m.autoscalers)
		case "keda.sh/v1alpha1 ScaledObject":
			err = decode(document, m.scaled)
		default:
			err = fmt.Errorf("%q is no kind that is checked here: add it", kind)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", dir, err, document)
		}
	}
	return m, nil
}

// decode adds one object to those of its kind, by namespace and name.
func decode[T any, P interface {
	*T
	metav1.Object
}](document []byte, to map[string]P) error {
	var object P = new(T)
	if err := yaml.UnmarshalStrict(document, object); err != nil {
		return err
	}
	name := strings.TrimPrefix(object.GetNamespace()+"/"+object.GetName(), "/")
	if to[name] != nil {
		return fmt.Errorf("%s is there twice", name)
	}
	to[name] = object
	return nil
}

// workloads lists everything that has pods.
func (m *manifests) workloads() []workload {
	var all []workload
	for name, d := range m.deployments {
		all = append(all, workload{name, d.Spec.Template.Labels, d.Spec.Selector, d.Spec.Template.Spec, d.Spec.Template.ObjectMeta})
	}
	for name, s := range m.statefulSets {
		all = append(all, workload{name, s.Spec.Template.Labels, s.Spec.Selector, s.Spec.Template.Spec, s.Spec.Template.ObjectMeta})
	}
	return all
}
