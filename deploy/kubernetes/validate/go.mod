// Holds the manifests against the types of Kubernetes and KEDA. A module of its
// own: no binary of the fleet needs these dependencies.
module github.com/gradefleet/gradefleet/deploy/kubernetes/validate

go 1.26.0

require (
	github.com/blang/semver/v4 v4.0.0 // indirect
	github.com/kedacore/keda/v2 v2.21.0 // indirect
	go.yaml.in/yaml/v2 v2.4.4 // indirect
	k8s.io/api v0.36.4 // indirect
	k8s.io/apimachinery v0.36.4 // indirect
	k8s.io/pod-security-admission v0.36.4 // indirect
	sigs.k8s.io/kustomize/api v0.21.1 // indirect
	sigs.k8s.io/kustomize/kyaml v0.21.1 // indirect
	sigs.k8s.io/yaml v1.6.0 // indirect
)
