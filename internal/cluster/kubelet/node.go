//go:build linux

package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/component-base/version"
	"k8s.io/component-helpers/apimachinery/lease"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

const (
	maxPods       = 110
	nodeCheck     = 10 * time.Second
	nodeHeartbeat = 5 * time.Minute // of conditions that do not change; the Lease is what says that the node lives
)

// machineCapacity is what the machine has. Virtual nodes share it, and each shows all of it.
func machineCapacity() (v1.ResourceList, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/", &fs); err != nil {
		return nil, err
	}
	return v1.ResourceList{
		v1.ResourceCPU:              *resource.NewQuantity(int64(goruntime.NumCPU()), resource.DecimalSI),
		v1.ResourceMemory:           *resource.NewQuantity(int64(info.Totalram)*int64(info.Unit), resource.BinarySI),
		v1.ResourceEphemeralStorage: *resource.NewQuantity(int64(fs.Blocks)*fs.Bsize, resource.BinarySI),
		v1.ResourcePods:             *resource.NewQuantity(maxPods, resource.DecimalSI),
	}, nil
}

func (k *Kubelet) nodeRef() *v1.ObjectReference {
	return &v1.ObjectReference{Kind: "Node", Name: k.cfg.NodeName, UID: types.UID(k.cfg.NodeName)}
}

// runNode keeps the Node object and its Lease until ctx ends.
func (k *Kubelet) runNode(ctx context.Context) {
	leased := make(chan struct{})
	tick := time.NewTicker(nodeCheck)
	defer tick.Stop()
	var leasing bool
	for {
		node, err := k.syncNode(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			k.cfg.Log.Warn("keeping the Node object", "err", err)
		case err == nil && !leasing:
			leasing = true
			close(k.registered)
			go func() { // waited for below
				defer close(leased)
				k.lease(node).Run(ctx)
			}()
		}
		wait := tick.C
		if err != nil {
			wait = time.After(time.Second)
		}
		select {
		case <-ctx.Done():
			if leasing {
				<-leased
			}
			return
		case <-k.leavingSet:
		case <-wait:
		}
	}
}

// lease renews the node's Lease (kube-node-lease), which the Node owns.
func (k *Kubelet) lease(node *v1.Node) lease.Controller {
	seconds := int32(max(1, 4*k.cfg.LeaseInterval/time.Second))
	own := func(l *coordinationv1.Lease) error {
		l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
		return nil
	}
	return lease.NewController(clock.RealClock{}, k.cfg.Client, k.cfg.NodeName, seconds, nil, k.cfg.LeaseInterval, k.cfg.NodeName, v1.NamespaceNodeLease, own)
}

// syncNode makes the Node as it should be. What others have put there stays.
func (k *Kubelet) syncNode(ctx context.Context) (*v1.Node, error) {
	nodes := k.cfg.Client.CoreV1().Nodes()
	node, err := nodes.Get(ctx, k.cfg.NodeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		node = &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: k.cfg.NodeName, Labels: k.nodeLabels()}}
		k.specify(node)
		if node, err = nodes.Create(ctx, node, metav1.CreateOptions{}); err == nil {
			k.recorder.Event(k.nodeRef(), v1.EventTypeNormal, "RegisteredNode", "Node "+k.cfg.NodeName+" is registered")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", k.cfg.NodeName, err)
	}
	wanted := node.DeepCopy()
	if wanted.Labels == nil {
		wanted.Labels = make(map[string]string)
	}
	maps.Copy(wanted.Labels, k.nodeLabels())
	k.specify(wanted)
	if !apiequality.Semantic.DeepEqual(node, wanted) {
		if node, err = k.patchNode(ctx, node, wanted); err != nil {
			return nil, err
		}
	}
	wanted = node.DeepCopy()
	k.describe(ctx, wanted)
	if !apiequality.Semantic.DeepEqual(node.Status, wanted.Status) {
		if node, err = k.patchNode(ctx, node, wanted, "status"); err != nil {
			return nil, err
		}
	}
	k.node.Store(node)
	return node, nil
}

func (k *Kubelet) patchNode(ctx context.Context, from, to *v1.Node, subresource ...string) (*v1.Node, error) {
	before, err := json.Marshal(from)
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(to)
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, v1.Node{})
	if err != nil {
		return nil, err
	}
	node, err := k.cfg.Client.CoreV1().Nodes().Patch(ctx, to.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, subresource...)
	if err != nil {
		return nil, fmt.Errorf("patching node %s: %w", to.Name, err)
	}
	return node, nil
}

func (k *Kubelet) nodeLabels() map[string]string {
	labels := map[string]string{
		v1.LabelHostname: k.cfg.NodeName, v1.LabelOSStable: goruntime.GOOS, v1.LabelArchStable: goruntime.GOARCH,
		"beta.kubernetes.io/os": goruntime.GOOS, "beta.kubernetes.io/arch": goruntime.GOARCH,
	}
	maps.Copy(labels, k.cfg.Labels)
	return labels
}

// specify sets the pod ranges, which cannot be changed once they are there.
func (k *Kubelet) specify(node *v1.Node) {
	if node.Spec.PodCIDR == "" && len(k.cfg.PodCIDRs) > 0 {
		node.Spec.PodCIDR, node.Spec.PodCIDRs = k.cfg.PodCIDRs[0], k.cfg.PodCIDRs
	}
}

// describe sets the status.
func (k *Kubelet) describe(ctx context.Context, node *v1.Node) {
	s := &node.Status
	s.Capacity, s.Allocatable = k.capacity, k.capacity
	s.Addresses = nil
	for _, a := range k.cfg.Addresses {
		s.Addresses = append(s.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: a.String()})
	}
	s.Addresses = append(s.Addresses, v1.NodeAddress{Type: v1.NodeHostName, Address: k.cfg.NodeName})
	s.DaemonEndpoints.KubeletEndpoint.Port = Port
	s.NodeInfo = k.nodeInfo(ctx)
	s.Features = nil
	if r, err := k.cfg.Runtime.Status(ctx, false); err == nil && r.GetFeatures() != nil { // not of containerd before 2.0
		s.Features = &v1.NodeFeatures{SupplementalGroupsPolicy: &r.Features.SupplementalGroupsPolicy}
	}
	if images, err := k.cfg.Images.ListImages(ctx, nil); err == nil {
		s.Images = nodeImages(images)
	}
	// Nothing is evicted, so that there never is pressure.
	setCondition(s, v1.NodeMemoryPressure, v1.ConditionFalse, "KubeletHasSufficientMemory", "kubelet has sufficient memory available")
	setCondition(s, v1.NodeDiskPressure, v1.ConditionFalse, "KubeletHasNoDiskPressure", "kubelet has no disk pressure")
	setCondition(s, v1.NodePIDPressure, v1.ConditionFalse, "KubeletHasSufficientPID", "kubelet has sufficient PID available")
	if k.leaving.Load() {
		setCondition(s, v1.NodeReady, v1.ConditionFalse, "KubeletNotReady", "node is shutting down")
		return
	}
	if err := k.runtimeReady(ctx); err != nil {
		setCondition(s, v1.NodeReady, v1.ConditionFalse, "KubeletNotReady", err.Error())
		return
	}
	setCondition(s, v1.NodeReady, v1.ConditionTrue, "KubeletReady", "kubelet is posting ready status")
}

// setCondition keeps the times of a condition that stays, but for a heartbeat now and then.
func setCondition(s *v1.NodeStatus, kind v1.NodeConditionType, status v1.ConditionStatus, reason, message string) {
	now := metav1.Now()
	c := v1.NodeCondition{Type: kind, Status: status, Reason: reason, Message: message, LastHeartbeatTime: now, LastTransitionTime: now}
	for i := range s.Conditions {
		old := &s.Conditions[i]
		if old.Type != kind {
			continue
		}
		if old.Status == status {
			c.LastTransitionTime = old.LastTransitionTime
			if old.Reason == reason && old.Message == message && now.Sub(old.LastHeartbeatTime.Time) < nodeHeartbeat {
				c.LastHeartbeatTime = old.LastHeartbeatTime
			}
		}
		*old = c
		return
	}
	s.Conditions = append(s.Conditions, c)
}

// runtimeReady says what the runtime lacks to run pods.
func (k *Kubelet) runtimeReady(ctx context.Context) error {
	response, err := k.cfg.Runtime.Status(ctx, false)
	if err != nil {
		return fmt.Errorf("container runtime is down: %w", err)
	}
	for _, c := range response.GetStatus().GetConditions() {
		if !c.Status && (c.Type == cri.RuntimeReady || c.Type == cri.NetworkReady) {
			return fmt.Errorf("container runtime %s: %s %s", c.Type, c.Reason, c.Message)
		}
	}
	return nil
}

func nodeImages(images []*cri.Image) []v1.ContainerImage {
	const most = 50 // kubelet's nodeStatusMaxImages
	slices.SortFunc(images, func(a, b *cri.Image) int { return int(b.Size) - int(a.Size) })
	var list []v1.ContainerImage
	for _, image := range images[:min(len(images), most)] {
		list = append(list, v1.ContainerImage{Names: append(slices.Clone(image.RepoDigests), image.RepoTags...), SizeBytes: int64(image.Size)})
	}
	return list
}

func (k *Kubelet) nodeInfo(ctx context.Context) v1.NodeSystemInfo {
	v := version.Get().GitVersion
	info := v1.NodeSystemInfo{
		MachineID: firstLine("/etc/machine-id"), SystemUUID: firstLine("/sys/class/dmi/id/product_uuid"), BootID: firstLine("/proc/sys/kernel/random/boot_id"),
		KernelVersion: firstLine("/proc/sys/kernel/osrelease"), OSImage: osImage(),
		KubeletVersion: v, OperatingSystem: goruntime.GOOS, Architecture: goruntime.GOARCH,
	}
	if r, err := k.cfg.Runtime.Version(ctx, ""); err == nil {
		info.ContainerRuntimeVersion = r.RuntimeName + "://" + r.RuntimeVersion
	}
	return info
}

func firstLine(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return "" // not every machine has it
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}

// osImage is the system's name for people (os-release(5)).
func osImage() string {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return goruntime.GOOS
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(name), `"'`)
		}
	}
	return goruntime.GOOS
}
