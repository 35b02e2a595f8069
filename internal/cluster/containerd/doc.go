// Package containerd runs the instance's own containerd: configuration, start, adoption, supervision, deletion.
//
// The instance is private: its own root, state, sockets and CNI folders, so that it disturbs no other containerd
// or Docker and is not disturbed. Any containerd from 1.6 with a runc on the PATH will do. It outlives this
// program, and so do the pods; the next Start adopts it. What containerd itself puts elsewhere, sockets of shims
// in /run/containerd/s and results in /var/lib/cni, is removed by name when the pods go.
//
// It does not know pods: those are package kubelet's, by CRI.
package containerd
