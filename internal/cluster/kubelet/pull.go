//go:build linux

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/flowcontrol"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/credentialprovider"
	"k8s.io/kubernetes/pkg/credentialprovider/secrets"
	"k8s.io/kubernetes/pkg/kubelet/events"
	"k8s.io/kubernetes/pkg/util/parsers"
)

// The reasons of a container that waits for its image (pkg/kubelet/images).
const (
	reasonErrImagePull     = "ErrImagePull"
	reasonImagePullBackOff = "ImagePullBackOff"
	reasonNeverPull        = "ErrImageNeverPull"
	reasonInspect          = "ImageInspectError"
	reasonInvalidName      = "InvalidImageName"
)

// pullNotice is how long a failed pull shows as ErrImagePull before it shows as ImagePullBackOff.
const pullNotice = 2 * time.Second

// startError is why a container could not be started: the reason and message of its waiting state.
type startError struct {
	reason, message string
	retry           time.Time // not before; zero is after backOffBase
}

func (e *startError) Error() string { return e.reason + ": " + e.message }

// puller gets images, with back-off per pod and image.
type puller struct {
	backOff *flowcontrol.Backoff
	mu      sync.Mutex
	last    map[string]failedPull // by back-off key
}

// failedPull is what the last pull said, and when the next may be.
type failedPull struct {
	message string
	next    time.Time
}

func newPuller() *puller {
	return &puller{backOff: flowcontrol.NewBackOff(backOffBase, backOffLimit), last: make(map[string]failedPull)}
}

// image makes a container's image present by its pull policy (EnsureImageExists of pkg/kubelet/images) and returns
// the runtime's id of it. An error is a *startError.
func (k *Kubelet) image(ctx context.Context, pod *v1.Pod, c *v1.Container, sandbox *cri.PodSandboxConfig) (string, error) {
	repository, tag, digest, err := parsers.ParseImageName(c.Image)
	if err != nil {
		message := fmt.Sprintf("Failed to apply default image tag %q: %v", c.Image, err)
		k.event(pod, c, v1.EventTypeWarning, events.FailedToInspectImage, message)
		return "", &startError{reason: reasonInvalidName, message: message}
	}
	name := c.Image
	if tag == "latest" && digest == "" && !hasTag(c.Image) {
		name += ":latest"
	}
	if c.ImagePullPolicy != v1.PullAlways {
		response, err := k.cfg.Images.ImageStatus(ctx, &cri.ImageSpec{Image: name}, false)
		if err != nil {
			message := fmt.Sprintf("Failed to inspect image %q: %v", name, err)
			k.event(pod, c, v1.EventTypeWarning, events.FailedToInspectImage, message)
			return "", &startError{reason: reasonInspect, message: message}
		}
		if image := response.GetImage(); image != nil {
			k.event(pod, c, v1.EventTypeNormal, events.PulledImage, fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", c.Image))
			return image.Id, nil
		}
		if c.ImagePullPolicy == v1.PullNever {
			message := fmt.Sprintf("Container image %q is not present with pull policy of Never", c.Image)
			k.event(pod, c, v1.EventTypeWarning, events.ErrImageNeverPullPolicy, message)
			return "", &startError{reason: reasonNeverPull, message: message}
		}
	}
	return k.pull(ctx, pod, c, sandbox, name, repository)
}

// hasTag reports whether a reference ends in a tag.
func hasTag(image string) bool {
	for i := len(image) - 1; i >= 0 && image[i] != '/'; i-- {
		if image[i] == ':' {
			return true
		}
	}
	return false
}

// pullKey is what the back-off of a pull is kept by.
func pullKey(pod *v1.Pod, c *v1.Container) string { return string(pod.UID) + "_" + c.Image }

func (k *Kubelet) pull(ctx context.Context, pod *v1.Pod, c *v1.Container, sandbox *cri.PodSandboxConfig, name, repository string) (string, error) {
	key := pullKey(pod, c)
	if k.puller.backOff.IsInBackOffSinceUpdate(key, time.Now()) {
		message := fmt.Sprintf("Back-off pulling image %q", c.Image)
		k.event(pod, c, v1.EventTypeNormal, events.BackOffPullImage, message)
		last := k.puller.failed(key)
		if last.message != "" {
			message += ": " + last.message
		}
		return "", &startError{reasonImagePullBackOff, message, last.next}
	}
	auths, err := k.pullAuths(ctx, pod, repository)
	if err != nil {
		return "", &startError{reason: reasonErrImagePull, message: err.Error()}
	}
	k.event(pod, c, v1.EventTypeNormal, events.PullingImage, fmt.Sprintf("Pulling image %q", c.Image))
	start := time.Now()
	var ref string
	for _, auth := range auths {
		if ref, err = k.cfg.Images.PullImage(ctx, &cri.ImageSpec{Image: name}, auth, sandbox); err == nil {
			break
		}
	}
	if err != nil {
		if ctx.Err() != nil { // the pod is being deleted
			return "", &startError{reason: reasonErrImagePull, message: ctx.Err().Error()}
		}
		message := status.Convert(err).Message()
		k.event(pod, c, v1.EventTypeWarning, events.FailedToPullImage, fmt.Sprintf("Failed to pull image %q: %s", c.Image, message))
		k.puller.fail(key, reasonErrImagePull+": "+message)
		return "", &startError{reasonErrImagePull, message, time.Now().Add(pullNotice)}
	}
	took := time.Since(start).Truncate(time.Millisecond)
	k.event(pod, c, v1.EventTypeNormal, events.PulledImage, fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.", c.Image, took, took, k.imageSize(ctx, ref)))
	k.puller.succeed(key)
	return ref, nil
}

// pullAuths are the credentials to try: those of the pod's imagePullSecrets for the repository, else none at all.
func (k *Kubelet) pullAuths(ctx context.Context, pod *v1.Pod, repository string) ([]*cri.AuthConfig, error) {
	var found []v1.Secret
	for _, ref := range pod.Spec.ImagePullSecrets {
		secret, err := k.cfg.Client.CoreV1().Secrets(pod.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			k.cfg.Log.Warn("image pull secret is missing", "pod", podFormat(pod), "secret", ref.Name)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("image pull secret %s: %w", ref.Name, err)
		}
		found = append(found, *secret)
	}
	keyring, err := secrets.MakeDockerKeyring(found, credentialprovider.UnionDockerKeyring{})
	if err != nil {
		return nil, fmt.Errorf("image pull secrets: %w", err)
	}
	credentials, _ := keyring.Lookup(repository)
	if len(credentials) == 0 {
		return []*cri.AuthConfig{nil}, nil
	}
	var auths []*cri.AuthConfig
	for _, c := range credentials {
		auths = append(auths, &cri.AuthConfig{
			Username: c.Username, Password: c.Password, Auth: c.Auth, ServerAddress: c.ServerAddress,
			IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
		})
	}
	return auths, nil
}

func (k *Kubelet) imageSize(ctx context.Context, ref string) uint64 {
	response, err := k.cfg.Images.ImageStatus(ctx, &cri.ImageSpec{Image: ref}, false)
	if err != nil {
		return 0
	}
	return response.GetImage().GetSize()
}

// imageUser asks the runtime for the user of an image.
func (k *Kubelet) imageUser(ctx context.Context, ref string) (imageUser, error) {
	response, err := k.cfg.Images.ImageStatus(ctx, &cri.ImageSpec{Image: ref}, false)
	if err != nil {
		return imageUser{}, err
	}
	image := response.GetImage()
	switch {
	case image == nil:
		return imageUser{}, errors.New("the image is gone")
	case image.Uid != nil:
		uid := image.Uid.Value
		return imageUser{uid: &uid}, nil
	}
	return imageUser{name: image.Username}, nil
}

func (p *puller) failed(key string) failedPull {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last[key]
}

func (p *puller) fail(key, message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.backOff.Next(key, now)
	p.last[key] = failedPull{message, now.Add(p.backOff.Get(key))}
}

func (p *puller) succeed(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.last, key)
	p.backOff.GC()
}

// forget ends a back-off.
func (p *puller) forget(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.last, key)
	p.backOff.DeleteEntry(key)
}
