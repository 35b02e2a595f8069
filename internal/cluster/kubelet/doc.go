// Package kubelet runs the pods that the API assigns to one node, over CRI.
//
// It has no globals: a process may run one per virtual node. It does not schedule, does not garbage-collect
// images, does not evict, and knows neither devices nor persistent volumes.
package kubelet
