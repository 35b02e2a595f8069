//go:build linux

package volumes

import (
	"fmt"
	"maps"
	"path"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/kubernetes/pkg/volume/configmap"
	"k8s.io/kubernetes/pkg/volume/secret"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"

	"minato/internal/cluster/kubelet/env"
)

type files = map[string]volumeutil.FileProjection

// payload is the content of a volume that comes from the API.
func (v Volumes) payload(pod *v1.Pod, spec *v1.Volume, src env.Sources) (files, error) {
	switch {
	case spec.ConfigMap != nil:
		s := spec.ConfigMap
		return configMapFiles(pod, src, s.Name, s.Items, s.DefaultMode, s.Optional)
	case spec.Secret != nil:
		s := spec.Secret
		return secretFiles(pod, src, s.SecretName, s.Items, s.DefaultMode, s.Optional)
	case spec.DownwardAPI != nil:
		return downwardFiles(pod, src, spec.DownwardAPI.Items, spec.DownwardAPI.DefaultMode)
	case spec.Projected != nil:
		return v.projected(pod, src, spec.Projected)
	}
	return nil, unsupported(spec.VolumeSource, "emptyDir, hostPath, configMap, secret, downwardAPI and projected ones")
}

func configMapFiles(pod *v1.Pod, src env.Sources, name string, items []v1.KeyToPath, mode *int32, optional *bool) (files, error) {
	object, err := src.ConfigMap(pod.Namespace, name)
	if err != nil {
		if !apierrors.IsNotFound(err) || !isTrue(optional) {
			return nil, err
		}
		object = &v1.ConfigMap{}
	}
	return configmap.MakePayload(items, object, mode, isTrue(optional))
}

func secretFiles(pod *v1.Pod, src env.Sources, name string, items []v1.KeyToPath, mode *int32, optional *bool) (files, error) {
	object, err := src.Secret(pod.Namespace, name)
	if err != nil {
		if !apierrors.IsNotFound(err) || !isTrue(optional) {
			return nil, err
		}
		object = &v1.Secret{}
	}
	return secret.MakePayload(items, object, mode, isTrue(optional))
}

func downwardFiles(pod *v1.Pod, src env.Sources, items []v1.DownwardAPIVolumeFile, defaultMode *int32) (files, error) {
	result := make(files)
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = src.Field(pod, item.FieldRef)
		case item.ResourceFieldRef != nil:
			value, err = src.Resource(pod, nil, item.ResourceFieldRef)
		default:
			err = fmt.Errorf("downwardAPI item %q has no source", item.Path)
		}
		if err != nil {
			return nil, err
		}
		mode := defaultMode
		if item.Mode != nil {
			mode = item.Mode
		}
		if mode == nil {
			return nil, fmt.Errorf("downwardAPI item %q has no mode", item.Path)
		}
		result[path.Clean(item.Path)] = volumeutil.FileProjection{Data: []byte(value), Mode: *mode}
	}
	return result, nil
}

// projected joins its sources; of two that write one file the later wins (pkg/volume/projected).
func (v Volumes) projected(pod *v1.Pod, src env.Sources, spec *v1.ProjectedVolumeSource) (files, error) {
	if spec.DefaultMode == nil {
		return nil, fmt.Errorf("no defaultMode used, not even the default value for it")
	}
	result := make(files)
	for _, source := range spec.Sources {
		var part files
		var err error
		switch {
		case source.ConfigMap != nil:
			s := source.ConfigMap
			part, err = configMapFiles(pod, src, s.Name, s.Items, spec.DefaultMode, s.Optional)
		case source.Secret != nil:
			s := source.Secret
			part, err = secretFiles(pod, src, s.Name, s.Items, spec.DefaultMode, s.Optional)
		case source.DownwardAPI != nil:
			part, err = downwardFiles(pod, src, source.DownwardAPI.Items, spec.DefaultMode)
		case source.ServiceAccountToken != nil:
			part, err = v.tokenFile(pod, source.ServiceAccountToken, *spec.DefaultMode)
		default:
			err = unsupported(source, "configMap, secret, downwardAPI and serviceAccountToken ones")
		}
		if err != nil {
			return nil, err
		}
		maps.Copy(result, part)
	}
	return result, nil
}

// tokenFile is a token bound to the pod. It belongs to the user of the containers alone where they have one, since
// the group of fsGroup gets its access by the change of ownership.
func (v Volumes) tokenFile(pod *v1.Pod, spec *v1.ServiceAccountTokenProjection, mode int32) (files, error) {
	user := volumeutil.FsUserFrom(pod)
	if user != nil || pod.Spec.SecurityContext != nil && pod.Spec.SecurityContext.FSGroup != nil {
		mode = 0o600
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: spec.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if spec.Audience != "" {
		request.Spec.Audiences = []string{spec.Audience}
	}
	token, err := v.Token(pod.Namespace, pod.Spec.ServiceAccountName, request)
	if err != nil {
		return nil, err
	}
	return files{spec.Path: {Data: []byte(token.Status.Token), Mode: mode, FsUser: user}}, nil
}

func isTrue(b *bool) bool { return b != nil && *b }
