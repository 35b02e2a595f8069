package scheduler

import (
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/core"
	corev1 "k8s.io/client-go/informers/core/v1"
)

// unfinished is a shared factory whose pods are those that have not ended. Upstream's
// scheduler counts every pod it sees against its Node, and so must not see the others.
type unfinished struct {
	informers.SharedInformerFactory
	pods informers.SharedInformerFactory // asked for nothing but pods
}

func (f unfinished) Core() core.Interface {
	return unfinishedCore{f.SharedInformerFactory.Core(), f.pods}
}

type unfinishedCore struct {
	core.Interface
	pods informers.SharedInformerFactory
}

func (c unfinishedCore) V1() corev1.Interface { return unfinishedCoreV1{c.Interface.V1(), c.pods} }

type unfinishedCoreV1 struct {
	corev1.Interface
	pods informers.SharedInformerFactory
}

func (v unfinishedCoreV1) Pods() corev1.PodInformer { return v.pods.Core().V1().Pods() }
