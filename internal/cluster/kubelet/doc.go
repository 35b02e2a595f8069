// Package kubelet runs the pods that the API assigns to one node, over CRI.
//
// Each pod has a worker, a goroutine that compares what the API wants with what the runtime has (plan, a pure
// function), does the difference and reports the status. Workers are woken by the API, by the runtime's exits, by
// probes and by their own timers. The rules, texts and names are upstream's; where upstream has them as functions
// these are called.
//
// It has no globals: a process may run one kubelet per virtual node, all on one runtime. It knows its containers by
// the label minato.io/node, and adopts those that run already.
//
// It does not schedule, does not collect images (images/garbage does), does not evict for others, and knows neither
// devices nor persistent volumes. What a pod asks for and cannot have is refused with an Event, never left out in
// silence: see docs/pods.md.
package kubelet
