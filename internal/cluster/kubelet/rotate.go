//go:build linux

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// The kubelet's containerLogMaxSize, containerLogMaxFiles and containerLogMonitorInterval.
const (
	logSize   = 10 << 20
	logFiles  = 5
	logPeriod = 10 * time.Second
)

// rotateLogs keeps the logs of running containers small until ctx ends. As upstream's, only the newest file of a
// container is served.
func (k *Kubelet) rotateLogs(ctx context.Context) {
	tick := time.NewTicker(logPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		containers, err := k.cfg.Runtime.ListContainers(ctx, &cri.ContainerFilter{
			State:         &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING},
			LabelSelector: map[string]string{labelNode: k.cfg.NodeName},
		})
		for _, c := range containers {
			err = errors.Join(err, k.rotateLog(ctx, c))
		}
		if err != nil && ctx.Err() == nil {
			k.cfg.Log.Warn("rotating logs", "err", err)
		}
	}
}

// rotateLog has the runtime write to a new file if the log has become large.
func (k *Kubelet) rotateLog(ctx context.Context, c *cri.Container) error {
	id := identity{c.Labels[kubelettypes.KubernetesPodNamespaceLabel], c.Labels[kubelettypes.KubernetesPodNameLabel], types.UID(c.Labels[kubelettypes.KubernetesPodUIDLabel])}
	file := filepath.Join(k.logDir(id), c.GetMetadata().GetName(), strconv.Itoa(int(c.GetMetadata().GetAttempt()))+".log")
	fi, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && fi.Size() < logSize {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Rename(file, file+"."+time.Now().UTC().Format("20060102-150405")); err != nil {
		return err
	}
	if err := k.cfg.Runtime.ReopenContainerLog(ctx, c.Id); err != nil {
		return fmt.Errorf("reopening the log of container %s: %w", c.GetMetadata().GetName(), err)
	}
	rotated, err := filepath.Glob(file + ".*")
	if err != nil {
		return err
	}
	slices.Sort(rotated) // by time
	for _, old := range rotated[:max(0, len(rotated)-(logFiles-1))] {
		err = errors.Join(err, os.Remove(old))
	}
	return err
}
