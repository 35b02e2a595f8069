//go:build linux

// Package manifests reads static pods: those that a folder of a node says, and no API (pkg/kubelet/config).
//
// The UID of such a pod is a hash of its file, so that a changed file is another pod. A file that cannot be used is told
// and left out, and the others count. It runs nothing, and shows nothing in the API.
package manifests

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/helper"
	_ "k8s.io/kubernetes/pkg/apis/core/install" // pods are decoded with its defaults
	corev1 "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
	kubetypes "k8s.io/kubernetes/pkg/kubelet/types"
	"k8s.io/kubernetes/pkg/util/hash"
)

// longest is how long a file may be, in bytes.
const longest = 10 << 20

// Problem is a file that is not used, and why.
type Problem struct {
	File string
	Err  error
}

// Read reads the pods of a folder, for the node of this name, in the order of their files. Files whose names begin with
// a dot do not count. A folder that is not there has no pods.
func Read(dir, node string) (pods []*v1.Pod, problems []Problem, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("static pods: %w", err)
	}
	from := make(map[types.NamespacedName]string) // the file
	for _, entry := range entries {
		file := filepath.Join(dir, entry.Name())
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		pod, err := read(file, node)
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed just now
		case err != nil:
			problems = append(problems, Problem{file, err})
		default:
			name := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
			if first, twice := from[name]; twice {
				problems = append(problems, Problem{file, fmt.Errorf("pod %s is in %s already", name, first)})
				continue
			}
			from[name] = file
			pods = append(pods, pod)
		}
	}
	return pods, problems, nil
}

func read(file, node string) (*v1.Pod, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, errors.New("no regular file")
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, longest+1))
	if err != nil {
		return nil, err
	}
	if len(data) > longest {
		return nil, fmt.Errorf("longer than %d bytes", longest)
	}
	return decode(data, file, node)
}

// decode makes a pod of a file, with defaults and what marks it as static, and checks it.
func decode(data []byte, file, node string) (*v1.Pod, error) {
	json, err := utilyaml.ToJSON(data)
	if err != nil {
		return nil, err
	}
	object, err := runtime.Decode(legacyscheme.Codecs.UniversalDecoder(), json)
	if err != nil {
		return nil, err
	}
	pod, ok := object.(*api.Pod)
	switch {
	case !ok:
		return nil, fmt.Errorf("a Pod is wanted, and this is a %T", object)
	case pod.Name == "":
		return nil, errors.New("the pod needs a name")
	}
	mark(pod, file, node)
	options := podutil.GetValidationOptionsFromPodSpecAndMeta(&pod.Spec, nil, &pod.ObjectMeta, nil)
	if errs := validation.ValidatePodCreate(pod, options); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	if _, kind, err := podutil.HasAPIObjectReference(pod); err != nil || kind != "" {
		return nil, errors.Join(err, fmt.Errorf("static pods may not reference %s", kind))
	}
	result := new(v1.Pod)
	if err := corev1.Convert_core_Pod_To_v1_Pod(pod, result, nil); err != nil {
		return nil, err
	}
	return result, nil
}

// mark makes the pod this node's (applyDefaults of pkg/kubelet/config).
func mark(pod *api.Pod, file, node string) {
	if pod.UID == "" {
		h := fnv.New128a()
		hash.DeepHashObject(h, pod) // it resets h
		fmt.Fprintf(h, "host:%sfile:%s", node, file)
		pod.UID = types.UID(hex.EncodeToString(h.Sum(nil)))
	}
	pod.Name += "-" + strings.ToLower(node)
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	pod.Spec.NodeName = node
	if pod.Annotations == nil {
		pod.Annotations = make(map[string]string)
	}
	pod.Annotations[kubetypes.ConfigHashAnnotationKey] = string(pod.UID)
	pod.Annotations[kubetypes.ConfigSourceAnnotationKey] = kubetypes.FileSource
	helper.AddOrUpdateTolerationInPod(pod, &api.Toleration{Operator: "Exists", Effect: api.TaintEffectNoExecute})
	pod.Status.Phase = api.PodPending
}
