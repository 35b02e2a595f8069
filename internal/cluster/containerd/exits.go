//go:build linux

package containerd

import (
	"context"
	"fmt"

	eventtypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/services/events/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Exits calls exited with the id of every container whose main process ends, until ctx ends or the connection
// breaks, and returns why. Ids of sandboxes are among them. containerd's own events exist in every version, CRI's
// GetContainerEvents only from 1.7. CRI may learn of the exit a moment later than the caller.
func (d *Daemon) Exits(ctx context.Context, exited func(id string)) error {
	conn, err := grpc.NewClient("unix://"+d.cfg.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connecting to containerd's events: %w", err)
	}
	defer conn.Close()
	stream, err := events.NewEventsClient(conn).Subscribe(ctx, &events.SubscribeRequest{Filters: []string{`topic=="/tasks/exit"`}})
	if err != nil {
		return fmt.Errorf("subscribing to containerd's events: %w", err)
	}
	for {
		envelope, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("containerd's events: %w", err)
		}
		var exit eventtypes.TaskExit
		if err := envelope.GetEvent().UnmarshalTo(&exit); err != nil {
			return fmt.Errorf("containerd's events: %w", err)
		}
		if exit.ID == exit.ContainerID { // else it is an exec's
			exited(exit.ContainerID)
		}
	}
}
