//go:build linux

package server

import (
	"context"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// settleTime is how long after its end the last line of a container may take to be in its log: containerd's writer
// works beside the report of the exit.
const settleTime = 100 * time.Millisecond

// settled is a runtime which reports an exit only when the log is whole. Who follows a log reads it once more after it
// was told of the end (ReadLogs of k8s.io/cri-client/pkg/logs).
type settled struct{ internalapi.RuntimeService }

// ContainerStatus asks the runtime, and holds back an exit that is younger than settleTime.
func (s settled) ContainerStatus(ctx context.Context, id string, verbose bool) (*cri.ContainerStatusResponse, error) {
	r, err := s.RuntimeService.ContainerStatus(ctx, id, verbose)
	if err != nil || r.GetStatus().GetState() != cri.ContainerState_CONTAINER_EXITED {
		return r, err
	}
	left := settleTime - time.Since(time.Unix(0, r.GetStatus().GetFinishedAt()))
	if left <= 0 {
		return r, nil
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(min(left, settleTime)):
		return r, nil
	}
}
