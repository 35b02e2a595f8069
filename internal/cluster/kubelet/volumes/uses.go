//go:build linux

package volumes

import (
	"fmt"
	"reflect"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Kind is a kind of object of the API that volumes show.
type Kind string

// The kinds.
const (
	ConfigMap Kind = "ConfigMap"
	Secret    Kind = "Secret"
)

// Uses reports whether a volume of the pod shows the object of that name in the pod's namespace.
func Uses(pod *v1.Pod, kind Kind, name string) bool {
	for i := range pod.Spec.Volumes {
		s := &pod.Spec.Volumes[i].VolumeSource
		switch {
		case s.ConfigMap != nil && kind == ConfigMap && s.ConfigMap.Name == name,
			s.Secret != nil && kind == Secret && s.Secret.SecretName == name:
			return true
		case s.Projected != nil:
			for _, p := range s.Projected.Sources {
				if p.ConfigMap != nil && kind == ConfigMap && p.ConfigMap.Name == name || p.Secret != nil && kind == Secret && p.Secret.Name == name {
					return true
				}
			}
		}
	}
	return false
}

// unsupported is an ErrUnsupported that names the field of a source (a struct of pointers, one of which is set), and
// what there is instead.
func unsupported(source any, has string) error {
	v := reflect.ValueOf(source)
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Pointer && !f.IsNil() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			return fmt.Errorf("%s: %w: there are %s", name, ErrUnsupported, has)
		}
	}
	return fmt.Errorf("%w: there are %s", ErrUnsupported, has)
}
