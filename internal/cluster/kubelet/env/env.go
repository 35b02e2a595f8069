// Package env computes the environment variables of containers, and the values that the downward API gives: by the
// rules of the kubelet (makeEnvironmentVariables of pkg/kubelet/kubelet_pods.go), with the same precedence:
// env before envFrom before Service variables.
//
// It does not read the API: the caller hands in what is needed.
package env

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/kubernetes/pkg/api/v1/resource"
	podshelper "k8s.io/kubernetes/pkg/apis/core/pods"
	v1helper "k8s.io/kubernetes/pkg/apis/core/v1/helper"
	"k8s.io/kubernetes/pkg/fieldpath"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/kubelet/envvars"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// Sources are where values come from, besides the pod itself.
type Sources struct {
	Services  []*v1.Service // of the pod's namespace and of default; others are ignored
	ConfigMap func(namespace, name string) (*v1.ConfigMap, error)
	Secret    func(namespace, name string) (*v1.Secret, error)
	// File is the value of a key in a file of variables (FileKeySelector) in a volume, empty where the file lacks it.
	File        func(volume, path, key string) (string, error)
	Allocatable v1.ResourceList // of the node: the limit of containers without one
	HostIPs     []netip.Addr
	PodIPs      []string
}

// Vars are the variables of a container, sorted by name. A missing reference that is not optional is an error.
func (s Sources) Vars(pod *v1.Pod, container *v1.Container) ([]kubecontainer.EnvVar, error) {
	if pod.Spec.EnableServiceLinks == nil {
		return nil, fmt.Errorf("nil pod.spec.enableServiceLinks encountered, cannot construct envvars")
	}
	services := s.serviceVars(pod.Namespace, *pod.Spec.EnableServiceLinks)
	vars, err := s.fromAll(pod, container)
	if err != nil {
		return nil, err
	}
	expand := expansion.MappingFuncFor(vars, services)
	for _, e := range container.Env {
		value := e.Value
		switch {
		case value != "":
			value = expansion.Expand(value, expand)
		case e.ValueFrom != nil:
			var ok bool
			if value, ok, err = s.valueFrom(pod, container, e.ValueFrom); err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
		}
		vars[e.Name] = value
	}
	for name, value := range services {
		if _, ok := vars[name]; !ok {
			vars[name] = value
		}
	}
	result := make([]kubecontainer.EnvVar, 0, len(vars))
	for name, value := range vars {
		result = append(result, kubecontainer.EnvVar{Name: name, Value: value})
	}
	slices.SortFunc(result, func(a, b kubecontainer.EnvVar) int { return cmp.Compare(a.Name, b.Name) })
	return result, nil
}

// serviceVars are the variables of the Services that a pod sees: default/kubernetes always, its own namespace's by
// enableServiceLinks, which win over default/kubernetes where the name is the same.
func (s Sources) serviceVars(namespace string, links bool) map[string]string {
	seen := make(map[string]*v1.Service)
	for _, service := range s.Services {
		if !v1helper.IsServiceIPSet(service) {
			continue
		}
		switch {
		case service.Namespace == v1.NamespaceDefault && service.Name == "kubernetes":
			if _, ok := seen[service.Name]; !ok {
				seen[service.Name] = service
			}
		case service.Namespace == namespace && links:
			seen[service.Name] = service
		}
	}
	list := make([]*v1.Service, 0, len(seen))
	for _, service := range seen {
		list = append(list, service)
	}
	slices.SortFunc(list, func(a, b *v1.Service) int { return cmp.Compare(a.Name, b.Name) })
	vars := make(map[string]string)
	for _, v := range envvars.FromServices(list) {
		vars[v.Name] = v.Value
	}
	return vars
}

// fromAll are the variables of envFrom; later ones win.
func (s Sources) fromAll(pod *v1.Pod, container *v1.Container) (map[string]string, error) {
	vars := make(map[string]string)
	for _, from := range container.EnvFrom {
		switch {
		case from.ConfigMapRef != nil:
			configMap, err := s.ConfigMap(pod.Namespace, from.ConfigMapRef.Name)
			if err != nil {
				if missing(err, from.ConfigMapRef.Optional) {
					continue
				}
				return nil, err
			}
			for key, value := range configMap.Data {
				vars[from.Prefix+key] = value
			}
		case from.SecretRef != nil:
			secret, err := s.Secret(pod.Namespace, from.SecretRef.Name)
			if err != nil {
				if missing(err, from.SecretRef.Optional) {
					continue
				}
				return nil, err
			}
			for key, value := range secret.Data {
				vars[from.Prefix+key] = string(value)
			}
		}
	}
	return vars, nil
}

// valueFrom resolves one source; ok is false where an optional one is missing.
func (s Sources) valueFrom(pod *v1.Pod, container *v1.Container, from *v1.EnvVarSource) (value string, ok bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err = s.Field(pod, from.FieldRef)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err = s.Resource(pod, container, from.ResourceFieldRef)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		configMap, err := s.ConfigMap(pod.Namespace, ref.Name)
		if err != nil {
			return "", false, unlessMissing(err, ref.Optional)
		}
		if value, ok := configMap.Data[ref.Key]; ok || isTrue(ref.Optional) {
			return value, ok, nil
		}
		return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", ref.Key, pod.Namespace, ref.Name)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		secret, err := s.Secret(pod.Namespace, ref.Name)
		if err != nil {
			return "", false, unlessMissing(err, ref.Optional)
		}
		if value, ok := secret.Data[ref.Key]; ok || isTrue(ref.Optional) {
			return string(value), ok, nil
		}
		return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", ref.Key, pod.Namespace, ref.Name)
	case from.FileKeyRef != nil:
		ref := from.FileKeyRef
		value, err := s.File(ref.VolumeName, ref.Path, ref.Key)
		if err == nil && value == "" && !isTrue(ref.Optional) {
			err = fmt.Errorf("environment variable key %q not found in file %q of volume %q", ref.Key, ref.Path, ref.VolumeName)
		}
		return value, value != "", err
	}
	return "", false, fmt.Errorf("this source of an environment variable is not supported by minato: %v", from)
}

// Field is the value of a field reference (downward API).
func (s Sources) Field(pod *v1.Pod, ref *v1.ObjectFieldSelector) (string, error) {
	path, _, err := podshelper.ConvertDownwardAPIFieldLabel(ref.APIVersion, ref.FieldPath, "")
	if err != nil {
		return "", err
	}
	switch path {
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(addrs(s.HostIPs)), nil
	case "status.hostIPs":
		return strings.Join(addrs(s.HostIPs), ","), nil
	case "status.podIP":
		return first(s.PodIPs), nil
	case "status.podIPs":
		return strings.Join(s.PodIPs, ","), nil
	}
	return fieldpath.ExtractFieldPathAsString(pod, path)
}

// Resource is the value of a resource reference; container may be nil where the reference names one. Without a
// limit of its own a container has the pod's, else the node's.
func (s Sources) Resource(pod *v1.Pod, container *v1.Container, ref *v1.ResourceFieldSelector) (string, error) {
	limits := s.Allocatable.DeepCopy()
	if pod.Spec.Resources != nil {
		for name, quantity := range pod.Spec.Resources.Limits {
			limits[name] = quantity
		}
	}
	if ref.ContainerName != "" {
		return resource.ExtractResourceValueByContainerNameAndNodeAllocatable(ref, pod, ref.ContainerName, limits)
	}
	container = container.DeepCopy()
	resource.MergeContainerResourceLimits(container, limits)
	return resource.ExtractContainerResourceValue(ref, container)
}

func missing(err error, optional *bool) bool { return apierrors.IsNotFound(err) && isTrue(optional) }

func unlessMissing(err error, optional *bool) error {
	if missing(err, optional) {
		return nil
	}
	return err
}

func isTrue(b *bool) bool { return b != nil && *b }

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

func addrs(list []netip.Addr) []string {
	var s []string
	for _, a := range list {
		s = append(s, a.String())
	}
	return s
}
