//go:build linux

package volumes

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"minato/internal/cluster/kubelet/env"
)

// api is the ConfigMap "settings" and the Secret "key", which tests change.
type api struct {
	settings map[string]string
	tokens   int
}

func (a *api) sources() env.Sources {
	return env.Sources{
		ConfigMap: func(_, name string) (*v1.ConfigMap, error) {
			if name != "settings" {
				return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
			}
			return &v1.ConfigMap{Data: a.settings, BinaryData: map[string][]byte{"raw": {0, 1}}}, nil
		},
		Secret: func(_, name string) (*v1.Secret, error) {
			if name != "key" {
				return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
			}
			return &v1.Secret{Data: map[string][]byte{"word": []byte("open")}}, nil
		},
	}
}

func (a *api) volumes(t *testing.T) Volumes {
	t.Helper()
	v := Volumes{Dir: t.TempDir(), Memory: resource.MustParse("1Gi"), Token: func(_, account string, r *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
		a.tokens++
		if r.Spec.BoundObjectRef.UID != "u" || account != "robot" {
			return nil, errors.New("a token for another")
		}
		return &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{Token: "token"}}, nil
	}}
	t.Cleanup(func() {
		if err := v.Remove("u"); err != nil {
			t.Error(err)
		}
	})
	return v
}

func withVolume(source v1.VolumeSource) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u", Labels: map[string]string{"a": "1"}, Annotations: map[string]string{"n": "2"}},
		Spec:       v1.PodSpec{ServiceAccountName: "robot", Volumes: []v1.Volume{{Name: "v", VolumeSource: source}}, Containers: []v1.Container{{Name: "c"}}},
	}
}

func sync(t *testing.T, v Volumes, pod *v1.Pod, a *api) Volume {
	t.Helper()
	made, err := v.Sync(t.Context(), pod, a.sources())
	if err != nil {
		t.Fatal(err)
	}
	return made["v"]
}

// content is that of a volume as a container sees it: "name=content mode".
func content(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), "..") {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if fi.IsDir() {
			lines = append(lines, entry.Name()+"/ "+content(t, path))
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, entry.Name()+"="+string(data)+" "+fi.Mode().Perm().String())
	}
	return strings.Join(lines, ", ")
}

func TestVolumesOfTheAPI(t *testing.T) {
	mode, strict, yes := int32(0o640), int32(0o400), true
	projected := &v1.ProjectedVolumeSource{DefaultMode: &mode, Sources: []v1.VolumeProjection{
		{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
		{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}, Items: []v1.KeyToPath{{Key: "color", Path: "ca.crt"}}}},
		{DownwardAPI: &v1.DownwardAPIProjection{Items: []v1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &v1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}}}}},
		{Secret: &v1.SecretProjection{LocalObjectReference: v1.LocalObjectReference{Name: "none"}, Optional: &yes}},
	}}
	for name, c := range map[string]struct {
		source v1.VolumeSource
		want   string
	}{
		"ConfigMap":          {v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}, DefaultMode: &mode}}, "color=blue -rw-r-----, raw=\x00\x01 -rw-r-----"},
		"items":              {v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}, DefaultMode: &mode, Items: []v1.KeyToPath{{Key: "color", Path: "sub/c", Mode: &strict}}}}, "sub/ c=blue -r--------"},
		"optional ConfigMap": {v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "none"}, DefaultMode: &mode, Optional: &yes}}, ""},
		"Secret":             {v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "key", DefaultMode: &strict}}, "word=open -r--------"},
		"downward API":       {v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{DefaultMode: &mode, Items: []v1.DownwardAPIVolumeFile{{Path: "l", FieldRef: &v1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.labels"}}}}}, `l=a="1" -rw-r-----`},
		"projected":          {v1.VolumeSource{Projected: projected}, "ca.crt=blue -rw-r-----, namespace=ns -rw-r-----, token=token -rw-r-----"},
	} {
		t.Run(name, func(t *testing.T) {
			a := &api{settings: map[string]string{"color": "blue"}}
			volume := sync(t, a.volumes(t), withVolume(c.source), a)
			if got := content(t, volume.Path); got != c.want || !volume.ReadOnly {
				t.Errorf("files %q, want %q; read-only %v", got, c.want, volume.ReadOnly)
			}
		})
	}
}

func TestAnUpdateReplacesAllFilesAtOnce(t *testing.T) {
	mode := int32(0o644)
	a := &api{settings: map[string]string{"color": "blue", "gone": "soon"}}
	v := a.volumes(t)
	pod := withVolume(v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}, DefaultMode: &mode}})
	dir := sync(t, v, pod, a).Path
	before, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil {
		t.Fatal(err)
	}
	sync(t, v, pod, a)
	if same, _ := os.Readlink(filepath.Join(dir, "..data")); same != before {
		t.Error("written again without a change")
	}
	a.settings = map[string]string{"color": "red", "shape": "round"}
	sync(t, v, pod, a)
	if after, _ := os.Readlink(filepath.Join(dir, "..data")); after == before {
		t.Error("the link was not swapped")
	}
	if got := content(t, dir); got != "color=red -rw-r--r--, raw=\x00\x01 -rw-r--r--, shape=round -rw-r--r--" {
		t.Errorf("files %q", got)
	}
}

func TestWhatIsMissingIsSaidAsTheKubeletSaysIt(t *testing.T) {
	mode := int32(0o644)
	a := &api{}
	for want, source := range map[string]v1.VolumeSource{
		`MountVolume.SetUp failed for volume "v" : configmaps "none" not found`:                                                                                              {ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "none"}, DefaultMode: &mode}},
		`MountVolume.SetUp failed for volume "v" : configmap references non-existent config key: size`:                                                                       {ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}, DefaultMode: &mode, Items: []v1.KeyToPath{{Key: "size", Path: "s"}}}},
		`MountVolume.SetUp failed for volume "v" : nfs: minato has no volumes of this kind: there are emptyDir, hostPath, configMap, secret, downwardAPI and projected ones`: {NFS: &v1.NFSVolumeSource{}},
		`MountVolume.SetUp failed for volume "v" : hostPath type check failed: stat /nonexistent: no such file or directory`:                                                 {HostPath: &v1.HostPathVolumeSource{Path: "/nonexistent", Type: new(v1.HostPathType("Directory"))}},
	} {
		_, err := a.volumes(t).Sync(t.Context(), withVolume(source), a.sources())
		if err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestAnEmptyDirIsMadeOnceAndWorldWritable(t *testing.T) {
	for _, medium := range []v1.StorageMedium{v1.StorageMediumDefault, v1.StorageMediumMemory} {
		t.Run("medium "+string(medium), func(t *testing.T) {
			if medium == v1.StorageMediumMemory && os.Geteuid() != 0 {
				t.Skip("needs root, to mount")
			}
			a := &api{}
			v := a.volumes(t)
			pod := withVolume(v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: medium}})
			dir := sync(t, v, pod, a).Path
			if err := os.WriteFile(filepath.Join(dir, "x"), []byte("kept"), 0o600); err != nil {
				t.Fatal(err)
			}
			if again := sync(t, v, pod, a); again.Path != dir || again.ReadOnly {
				t.Errorf("volume %+v", again)
			}
			fi, err := os.Stat(dir)
			if err != nil {
				t.Fatal(err)
			}
			if got := content(t, dir); got != "x=kept -rw-------" || fi.Mode().Perm() != 0o777 {
				t.Errorf("files %q, mode %v", got, fi.Mode())
			}
			if err := v.Remove("u"); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(v.PodDir("u")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the pod's folder is left: %v", err)
			}
		})
	}
}

func TestFsGroupOwnsTheFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to change owners")
	}
	mode, group := int32(0o400), int64(4321)
	a := &api{}
	pod := withVolume(v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "key", DefaultMode: &mode}})
	pod.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: &group}
	dir := sync(t, a.volumes(t), pod, a).Path
	fi, err := os.Stat(filepath.Join(dir, "word"))
	if err != nil {
		t.Fatal(err)
	}
	if gid := fi.Sys().(*syscall.Stat_t).Gid; gid != 4321 || fi.Mode().Perm() != 0o440 {
		t.Errorf("group %d, mode %v", gid, fi.Mode())
	}
}

func TestASubpathCannotLeaveItsVolume(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount")
	}
	a := &api{}
	v := a.volumes(t)
	pod := withVolume(v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}})
	volume := sync(t, v, pod, a)
	if err := os.Symlink("/etc", filepath.Join(volume.Path, "out")); err != nil {
		t.Fatal(err)
	}
	if host, err := v.Subpath(pod, "c", 0, "v", volume, "out"); err == nil {
		t.Errorf("mounted %s", host)
	}
	host, err := v.Subpath(pod, "c", 1, "v", volume, "a/b")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(host, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(volume.Path, "a", "b", "x")); err != nil {
		t.Error(err)
	}
}

func TestAVariableOfAFileStaysInItsVolume(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	err := errors.Join(os.WriteFile(filepath.Join(dir, "vars"), []byte("COLOR='blue'\n"), 0o600),
		os.WriteFile(outside, []byte("COLOR='red'\n"), 0o600), os.Symlink(outside, filepath.Join(dir, "link")))
	if err != nil {
		t.Fatal(err)
	}
	if value, err := Variable(Volume{Path: dir}, "vars", "COLOR"); value != "blue" || err != nil {
		t.Errorf("got %q, %v", value, err)
	}
	if value, err := Variable(Volume{Path: dir}, "vars", "SHAPE"); value != "" || err != nil {
		t.Errorf("a key that is not there: %q, %v", value, err)
	}
	if value, err := Variable(Volume{Path: dir}, "link", "COLOR"); err == nil {
		t.Errorf("a link led out of the volume, to %q", value)
	}
}

func TestAMemoryVolumeIsNoLargerThanItsPodMayBe(t *testing.T) {
	limit := func(quantity string) v1.ResourceRequirements {
		return v1.ResourceRequirements{Limits: v1.ResourceList{v1.ResourceMemory: resource.MustParse(quantity)}}
	}
	for name, c := range map[string]struct {
		size, pod string
		want      int64
	}{
		"without limits":         {"", "", 1 << 30},
		"by its own limit":       {"1Mi", "64Mi", 1 << 20},
		"by the pod's limit":     {"", "64Mi", 64 << 20},
		"never beyond the pod's": {"128Mi", "64Mi", 64 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			a := &api{}
			spec := &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}
			pod := withVolume(v1.VolumeSource{EmptyDir: spec})
			if c.size != "" {
				size := resource.MustParse(c.size)
				spec.SizeLimit = &size
			}
			if c.pod != "" {
				pod.Spec.Containers[0].Resources = limit(c.pod)
			}
			if got := a.volumes(t).memoryLimit(pod, spec); got != c.want {
				t.Errorf("%d bytes, want %d", got, c.want)
			}
		})
	}
}

func TestAPodUsesTheObjectsThatItsVolumesShow(t *testing.T) {
	secret := v1.SecretProjection{LocalObjectReference: v1.LocalObjectReference{Name: "key"}}
	for kind, source := range map[Kind]v1.VolumeSource{
		ConfigMap: {ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "key"}}},
		Secret:    {Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{{Secret: &secret}}}},
	} {
		pod := withVolume(source)
		if !Uses(pod, kind, "key") || Uses(pod, kind, "other") || Uses(pod, map[Kind]Kind{ConfigMap: Secret, Secret: ConfigMap}[kind], "key") {
			t.Errorf("%s key: wrong answer", kind)
		}
	}
}
