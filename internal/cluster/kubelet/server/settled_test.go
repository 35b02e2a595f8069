//go:build linux

package server

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fixed is a runtime that knows one container.
type fixed struct {
	internalapi.RuntimeService
	status cri.ContainerStatus
}

func (f *fixed) ContainerStatus(context.Context, string, bool) (*cri.ContainerStatusResponse, error) {
	return &cri.ContainerStatusResponse{Status: &f.status}, nil
}

func TestAnExitIsToldWhenTheLogIsWhole(t *testing.T) {
	for name, tt := range map[string]struct {
		state cri.ContainerState
		ago   time.Duration
		wait  time.Duration
	}{
		"running":           {cri.ContainerState_CONTAINER_RUNNING, 0, 0},
		"ended now":         {cri.ContainerState_CONTAINER_EXITED, 0, settleTime},
		"ended just before": {cri.ContainerState_CONTAINER_EXITED, 60 * time.Millisecond, 40 * time.Millisecond},
		"ended long ago":    {cri.ContainerState_CONTAINER_EXITED, time.Hour, 0},
		"clock went back":   {cri.ContainerState_CONTAINER_EXITED, -time.Hour, settleTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				f := &fixed{status: cri.ContainerStatus{State: tt.state, FinishedAt: start.Add(-tt.ago).UnixNano()}}
				r, err := settled{f}.ContainerStatus(t.Context(), "id", false)
				if err != nil || r.Status.State != tt.state {
					t.Fatalf("%v, %v", r, err)
				}
				if took := time.Since(start); took != tt.wait {
					t.Errorf("took %v, want %v", took, tt.wait)
				}
			})
		})
	}
}
