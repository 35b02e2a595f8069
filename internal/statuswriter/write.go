package statuswriter

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"minato/internal/ipam"
	"minato/internal/model"
	"minato/internal/source"
)

// FieldManager owns the addresses that a Writer gave.
const FieldManager = "minato-addresses"

// write takes a Service to a decision that was made when it looked like seen. When the API has a newer one, the
// decision is left to the next snapshot.
func (w *Writer) write(ctx context.Context, seen *model.Service, d *ipam.Decision) error {
	if err := w.limit.Wait(ctx); err != nil {
		return err
	}
	api, err := w.cfg.Client.CoreV1().Services(d.Service.Namespace).Get(ctx, d.Service.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading Service %s: %w", d.Service, err)
	}
	newest := &source.Service(api).Service
	switch {
	case slices.Equal(newest.LoadBalancerAddrs, d.Addrs):
		w.wrote(d) // the snapshot is older than our last write
		return nil
	case !newest.Created.Equal(seen.Created), !slices.Equal(newest.LoadBalancerAddrs, d.Had):
		return nil
	case len(d.Addrs) == 0 && !ownsStatus(api):
		w.wrote(d) // somebody else gave it the address: as good as none of ours
		return nil
	}
	patch := applycorev1.Service(api.Name, api.Namespace).WithUID(api.UID).WithResourceVersion(api.ResourceVersion)
	patch.WithStatus(applycorev1.ServiceStatus().WithLoadBalancer(applycorev1.LoadBalancerStatus().WithIngress(ingress(d.Addrs)...)))
	_, err = w.cfg.Client.CoreV1().Services(api.Namespace).ApplyStatus(ctx, patch, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing the status of Service %s: %w", d.Service, err)
	}
	w.wrote(d)
	w.tellGiven(api, d)
	return nil
}

func (w *Writer) wrote(d *ipam.Decision) { w.written[d.Service] = written{d.Addrs, time.Now()} }

func (w *Writer) tellGiven(api *corev1.Service, d *ipam.Decision) {
	if d.Dropped != "" {
		w.cfg.Recorder.Eventf(api, corev1.EventTypeNormal, "ClearAssignment", "Took %q back: %s", d.Had, d.Dropped)
	}
	if len(d.Addrs) > 0 {
		w.cfg.Recorder.Eventf(api, corev1.EventTypeNormal, "IPAllocated", "Assigned IP %q", d.Addrs)
	}
	w.cfg.Log.Info("gave a Service its addresses", "service", d.Service, "addresses", d.Addrs, "before", d.Had, "because", d.Dropped)
}

// ingress: mode VIP says that packets arrive with the address as their destination, so that nodes may take the short
// way (KEP-1860).
func ingress(addrs []netip.Addr) (all []*applycorev1.LoadBalancerIngressApplyConfiguration) {
	for _, a := range addrs {
		all = append(all, applycorev1.LoadBalancerIngress().WithIP(a.String()).WithIPMode(corev1.LoadBalancerIPModeVIP))
	}
	return all
}

// ownsStatus reports whether this program wrote the Service's status.
func ownsStatus(o *corev1.Service) bool {
	return slices.ContainsFunc(o.ManagedFields, func(f metav1.ManagedFieldsEntry) bool {
		return f.Manager == FieldManager
	})
}
