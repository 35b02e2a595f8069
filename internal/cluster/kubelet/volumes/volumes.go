//go:build linux

// Package volumes makes the volumes of pods: emptyDir, hostPath, configMap, secret, downwardAPI and projected.
//
// Volumes that come from the API are written by upstream's AtomicWriter, so that a container sees all of an update
// or nothing of it. Sync is repeated to bring them up to date; what has not changed is not written.
//
// It knows no persistent volumes, no CSI and no quotas.
package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/cm"
	envutil "k8s.io/kubernetes/pkg/kubelet/util/env"
	"k8s.io/kubernetes/pkg/volume"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"
	"k8s.io/kubernetes/pkg/volume/util/subpath"
	mount "k8s.io/mount-utils"

	"minato/internal/cluster/kubelet/env"
)

// ErrUnsupported says that a pod wants a kind of volume that is not in the package's list.
var ErrUnsupported = errors.New("minato has no volumes of this kind")

// Token asks the API for a ServiceAccount token.
type Token func(namespace, serviceAccount string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)

// Volumes makes volumes below Dir/POD-UID/volumes. Its methods are safe for concurrent use for different pods.
type Volumes struct {
	Dir    string
	Token  Token
	Memory resource.Quantity // the node's, which bounds what is kept in memory
}

// Volume is one that is in place.
type Volume struct {
	Path     string // on the host; empty if there is nothing to mount
	ReadOnly bool   // whatever the container says
}

// PodDir is the folder of everything of a pod.
func (v Volumes) PodDir(uid types.UID) string { return filepath.Join(v.Dir, string(uid)) }

// Sync makes the volumes of a pod, or brings them up to date, and returns them by name. On error the others may be
// in place; Sync can be repeated.
func (v Volumes) Sync(ctx context.Context, pod *v1.Pod, src env.Sources) (map[string]Volume, error) {
	made := make(map[string]Volume, len(pod.Spec.Volumes))
	for i := range pod.Spec.Volumes {
		spec := &pod.Spec.Volumes[i]
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		one, err := v.sync(pod, spec, src)
		if err != nil {
			return nil, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", spec.Name, err)
		}
		made[spec.Name] = one
	}
	return made, nil
}

func (v Volumes) sync(pod *v1.Pod, spec *v1.Volume, src env.Sources) (Volume, error) {
	dir := v.Path(pod, spec)
	switch {
	case spec.EmptyDir != nil:
		return Volume{Path: dir}, v.emptyDir(pod, dir, spec.EmptyDir)
	case spec.HostPath != nil:
		return Volume{Path: spec.HostPath.Path}, hostPath(spec.HostPath)
	}
	payload, err := v.payload(pod, spec, src)
	if err != nil {
		return Volume{}, err
	}
	return Volume{Path: dir, ReadOnly: true}, write(pod, dir, payload)
}

// emptyDir is made once: a second call must not change what the containers did to it.
func (v Volumes) emptyDir(pod *v1.Pod, dir string, spec *v1.EmptyDirVolumeSource) error {
	switch spec.Medium {
	case v1.StorageMediumMemory:
		return v.memoryDir(pod, dir, spec)
	case v1.StorageMediumDefault:
	default:
		return fmt.Errorf("emptyDir of medium %q: %w", spec.Medium, ErrUnsupported)
	}
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	tmp := dir + ".new" // until it is complete
	if err := errors.Join(os.RemoveAll(tmp), os.MkdirAll(tmp, 0o777), os.Chmod(tmp, 0o777), own(pod, tmp, false)); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// memoryDir is a tmpfs. A mount point says that it was made; a reboot takes both away.
func (v Volumes) memoryDir(pod *v1.Pod, dir string, spec *v1.EmptyDirVolumeSource) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	mounted, err := mount.NewWithoutSystemd("").IsMountPoint(dir)
	if err != nil || mounted {
		return err
	}
	options := fmt.Sprintf("mode=0777,size=%d", v.memoryLimit(pod, spec))
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		return os.NewSyscallError("mount tmpfs", err)
	}
	if err := own(pod, dir, false); err != nil {
		return errors.Join(err, unmount(dir))
	}
	return nil
}

// memoryLimit is the smallest of the volume's own limit, the memory limit of the pod and the memory of the node
// (calculateEmptyDirMemorySize of pkg/volume/emptydir).
func (v Volumes) memoryLimit(pod *v1.Pod, spec *v1.EmptyDirVolumeSource) int64 {
	limit := v.Memory.Value()
	if pods := cm.ResourceConfigForPod(pod, false, cm.QuotaPeriod, false, kubeletconfig.NoneMemoryReservationPolicy).Memory; pods != nil && *pods > 0 {
		limit = min(limit, *pods)
	}
	if spec.SizeLimit != nil && spec.SizeLimit.Value() > 0 {
		limit = min(limit, spec.SizeLimit.Value())
	}
	return limit
}

// write puts files into dir atomically.
func write(pod *v1.Pod, dir string, payload map[string]volumeutil.FileProjection) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	writer, err := volumeutil.NewAtomicWriter(dir, "pod "+pod.Namespace+"/"+pod.Name)
	if err != nil {
		return err
	}
	return writer.Write(payload, func(string) error { return own(pod, dir, true) })
}

// own gives dir to the pod's fsGroup, to read or to write.
func own(pod *v1.Pod, dir string, readOnly bool) error {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	context := pod.Spec.SecurityContext
	return volume.NewVolumeOwnership(attributes{readOnly: readOnly}, dir, context.FSGroup, context.FSGroupChangePolicy, nil).ChangePermissions()
}

// attributes are what upstream's ownership code wants to know of a volume.
type attributes struct {
	volume.Mounter
	readOnly bool
}

func (a attributes) GetAttributes() volume.Attributes {
	return volume.Attributes{Managed: true, ReadOnly: a.readOnly}
}

// hostPath checks or makes the path (k8s.io/api HostPathType).
func hostPath(spec *v1.HostPathVolumeSource) error {
	if spec.Type == nil {
		return nil
	}
	switch *spec.Type {
	case v1.HostPathUnset:
		return nil
	case v1.HostPathDirectoryOrCreate:
		if err := os.MkdirAll(spec.Path, 0o755); err != nil {
			return err
		}
	case v1.HostPathFileOrCreate:
		f, err := os.OpenFile(spec.Path, os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		f.Close()
	}
	fi, err := os.Stat(spec.Path)
	if err != nil {
		return fmt.Errorf("hostPath type check failed: %w", err)
	}
	is := map[v1.HostPathType]bool{
		v1.HostPathDirectoryOrCreate: fi.IsDir(), v1.HostPathDirectory: fi.IsDir(),
		v1.HostPathFileOrCreate: fi.Mode().IsRegular(), v1.HostPathFile: fi.Mode().IsRegular(),
		v1.HostPathSocket:   fi.Mode()&fs.ModeSocket != 0,
		v1.HostPathCharDev:  fi.Mode()&fs.ModeCharDevice != 0,
		v1.HostPathBlockDev: fi.Mode()&fs.ModeDevice != 0 && fi.Mode()&fs.ModeCharDevice == 0,
	}
	if !is[*spec.Type] {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", spec.Path, *spec.Type)
	}
	return nil
}

// Variable is the value of a key in a file of variables within a volume, empty where the file lacks it (kubelet's
// EnvFiles). No symbolic link leads out of the volume.
func Variable(vol Volume, path, key string) (string, error) {
	if vol.Path == "" {
		return "", errors.New("cannot find the volume of the file of variables")
	}
	f, err := os.OpenInRoot(vol.Path, path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return envutil.ParseEnv(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), key)
}

// Subpath makes a path within a volume safe to mount, and returns it: a container cannot lead out of the volume by a
// symbolic link. Remove undoes it.
func (v Volumes) Subpath(pod *v1.Pod, container string, index int, name string, vol Volume, path string) (string, error) {
	paths := subpath.New(mount.NewWithoutSystemd(""))
	full := filepath.Join(vol.Path, path)
	if _, err := os.Stat(full); errors.Is(err, fs.ErrNotExist) {
		fi, err := os.Stat(vol.Path)
		if err != nil {
			return "", err
		}
		if err := paths.SafeMakeDir(path, vol.Path, fi.Mode()); err != nil {
			return "", fmt.Errorf("failed to create subPath directory for volumeMount %q of container %q: %w", name, container, err)
		}
	}
	host, _, err := paths.PrepareSafeSubpath(subpath.Subpath{ // on Linux there is nothing to clean up before Remove
		VolumeMountIndex: index, Path: full, VolumeName: name, VolumePath: vol.Path, PodDir: v.PodDir(pod.UID), ContainerName: container,
	})
	if err != nil {
		return "", fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", name, container, err)
	}
	return host, nil
}

// Remove removes the folder of a pod with all its volumes. A second call does nothing.
func (v Volumes) Remove(uid types.UID) error {
	dir := v.PodDir(uid)
	volumes, err := os.ReadDir(filepath.Join(dir, "volumes"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	paths := subpath.New(mount.NewWithoutSystemd(""))
	subpaths, err := os.ReadDir(filepath.Join(dir, "volume-subpaths"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range subpaths {
		if err := paths.CleanSubPaths(dir, entry.Name()); err != nil {
			return fmt.Errorf("removing subPaths of volume %s: %w", entry.Name(), err)
		}
	}
	for _, entry := range volumes {
		if err := unmount(filepath.Join(dir, "volumes", entry.Name())); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

func unmount(path string) error {
	err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return &fs.PathError{Op: "unmount", Path: path, Err: err}
}
