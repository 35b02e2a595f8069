//go:build linux

package kubelet

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"
	"k8s.io/kubernetes/pkg/kubelet/sysctl"
	schedulerframework "k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/security/apparmor"
)

// admission decides once about every new pod of the node whether it may run here at all, with upstream's rules,
// reasons and texts (pkg/kubelet/lifecycle): the scheduler has no say in pods that name their node themselves.
type admission struct {
	sysctls  lifecycle.PodAdmitHandler
	apparmor lifecycle.PodAdmitHandler
}

func newAdmission(ctx context.Context) (admission, error) {
	sysctls, err := sysctl.NewAllowlist(sysctl.SafeSysctlAllowlist(ctx))
	if err != nil {
		return admission{}, fmt.Errorf("safe sysctls: %w", err)
	}
	return admission{sysctls, lifecycle.NewAppArmorAdmitHandler(apparmor.NewValidator())}, nil
}

// admitted reports whether the pod may run, which is decided once in its life. A pod that may not has failed.
func (w *worker) admitted(ctx context.Context, runtime *kubecontainer.PodStatus) (bool, error) {
	w.k.admitting.Lock() // two pods must not both get the last of something
	defer w.k.admitting.Unlock()
	switch {
	case w.holdsShare():
		return true, nil
	case terminal(w.pod.Status.Phase) || w.reported:
		return false, nil // rejected before
	case len(runtime.SandboxStatuses) > 0:
		w.takeShare()
		return true, nil
	}
	node, err := w.k.ownNode(ctx, true)
	if err != nil {
		return false, err
	}
	result := w.k.admission.judge(w.pod, w.k.podsWithShare(), func(_ context.Context, cached bool) (*v1.Node, error) {
		if cached {
			return node, nil
		}
		return w.k.ownNode(ctx, false)
	})
	if result.Admit {
		w.takeShare()
		return true, nil
	}
	w.k.podEvent(w.pod, v1.EventTypeWarning, result.Reason, result.Message)
	w.setStatus(v1.PodStatus{
		QOSClass: qos.GetPodQOS(w.pod), Phase: v1.PodFailed, ObservedGeneration: w.pod.Generation,
		Reason: result.Reason, Message: "Pod was rejected: " + result.Message,
	})
	return false, nil
}

func (a admission) judge(pod *v1.Pod, others []*v1.Pod, node func(context.Context, bool) (*v1.Node, error)) lifecycle.PodAdmitResult {
	attributes := &lifecycle.PodAdmitAttributes{Pod: pod, OtherPods: others, Operation: lifecycle.AddOperation}
	fits := lifecycle.NewPredicateAdmitHandler(node, lifecycle.NewAdmissionFailureHandlerStub(),
		func(*schedulerframework.NodeInfo, *lifecycle.PodAdmitAttributes) error { return nil })
	for _, handler := range []lifecycle.PodAdmitHandler{a.sysctls, a.apparmor, fits} {
		if result := handler.Admit(attributes); !result.Admit {
			return result
		}
	}
	return lifecycle.PodAdmitResult{Admit: true}
}

// holdsShare reports whether the pod was admitted, perhaps by an earlier life of this program: only an admitted pod has
// a start time. What the API has deleted holds nothing: its successor may be here before the last of it is gone.
func (w *worker) holdsShare() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.gone && (w.share || w.newest != nil && w.newest.Status.StartTime != nil)
}

func (w *worker) takeShare() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.share = true
}

// podsWithShare are the admitted pods that have not ended.
func (k *Kubelet) podsWithShare() []*v1.Pod {
	var pods []*v1.Pod
	for _, w := range k.allWorkers() {
		if !w.holdsShare() {
			continue
		}
		w.mu.Lock()
		if w.newest != nil && !terminal(w.newest.Status.Phase) {
			pods = append(pods, w.grant.on(w.newest))
		}
		w.mu.Unlock()
	}
	return pods
}

// ownNode is the Node, cached as this kubelet last wrote it if it has.
func (k *Kubelet) ownNode(ctx context.Context, cached bool) (*v1.Node, error) {
	if node := k.node.Load(); cached && node != nil {
		return node, nil
	}
	node, err := k.cfg.Client.CoreV1().Nodes().Get(ctx, k.cfg.NodeName, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading the own node, to see whether the pod fits: %w", err)
	}
	if len(node.Status.Allocatable) == 0 { // this kubelet has not described it yet
		node = node.DeepCopy()
		node.Status.Allocatable = k.capacity
	}
	return node, nil
}
