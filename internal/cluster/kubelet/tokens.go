//go:build linux

package kubelet

import (
	"context"
	"fmt"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

const (
	tokenTimeout = 10 * time.Second
	tokenMaxAge  = 24 * time.Hour
)

// tokens keeps the ServiceAccount tokens of pods until they are due for renewal, at 80 % of their life or after a
// day (pkg/kubelet/token).
type tokens struct {
	client kubernetes.Interface
	mu     sync.Mutex
	kept   map[types.UID]map[string]*authenticationv1.TokenRequest
}

func newTokens(client kubernetes.Interface) *tokens {
	return &tokens{client: client, kept: make(map[types.UID]map[string]*authenticationv1.TokenRequest)}
}

// get is a token for a pod, which the request names. If the API is away a token that is due but valid is returned.
func (t *tokens) get(namespace, account string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	uid := request.Spec.BoundObjectRef.UID
	key := fmt.Sprintf("%s/%s %q %d", namespace, account, request.Spec.Audiences, seconds(request))
	t.mu.Lock()
	old := t.kept[uid][key]
	t.mu.Unlock()
	now := time.Now()
	if old != nil && now.Before(renewal(old)) {
		return old, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), tokenTimeout)
	defer cancel()
	token, err := t.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		if old != nil && now.Before(old.Status.ExpirationTimestamp.Time) {
			return old, nil
		}
		return nil, fmt.Errorf("failed to fetch token: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kept[uid] == nil {
		t.kept[uid] = make(map[string]*authenticationv1.TokenRequest)
	}
	t.kept[uid][key] = token
	return token, nil
}

func renewal(token *authenticationv1.TokenRequest) time.Time {
	life := tokenMaxAge
	if seconds := token.Spec.ExpirationSeconds; seconds != nil {
		life = time.Duration(*seconds) * time.Second
	}
	issued := token.Status.ExpirationTimestamp.Add(-life)
	return issued.Add(min(life*8/10, tokenMaxAge))
}

// forget drops a pod's tokens.
func (t *tokens) forget(uid types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.kept, uid)
}

func seconds(request *authenticationv1.TokenRequest) int64 {
	if request.Spec.ExpirationSeconds == nil {
		return 0
	}
	return *request.Spec.ExpirationSeconds
}
