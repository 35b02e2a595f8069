//go:build linux

package walkthrough

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"minato/internal/netns"
	"minato/test/images/recipe"
	"minato/test/world"
)

// A registry on the host that lets nobody in without a password.
const (
	registryAddr               = "127.0.0.1:5000"
	registryUser, registryWord = "robot", "open sesame"
)

func TestAPrivateRegistryIsAskedWithTheSecretOfThePod(t *testing.T) {
	w := world.Start(t, world.Config{Images: []string{}})
	digest := servePrivately(t, w.Host)
	w.Kubectl(t, "create", "secret", "docker-registry", "door", "--docker-server="+registryAddr, "--docker-username="+registryUser, "--docker-password="+registryWord)
	sleeper := func(pod, image, secrets string) { // pulls, whatever is there already
		t.Helper()
		w.Kubectl(t, "run", pod, "--image="+registryAddr+"/private/"+image, "--restart=Never", "--image-pull-policy=Always",
			fmt.Sprintf(`--overrides={"spec":{"terminationGracePeriodSeconds":1,"imagePullSecrets":[%s]}}`, secrets), "--", "sleep", "1000000")
	}
	sleeper("stranger", "busybox:1", "")
	world.Eventually(t, podTime, func() error {
		events := w.Kubectl(t, "get", "events", "--field-selector", "involvedObject.name=stranger,reason=Failed", "-o", "custom-columns=:.message")
		if !strings.Contains(events, "401 Unauthorized") {
			return fmt.Errorf("no Event says that the registry wants a password:\n%s", events)
		}
		return nil
	})
	sleeper("guest", "busybox:1", `{"name":"door"}`)
	w.Kubectl(t, "wait", "--for=condition=Ready", "pod/guest", "--timeout=50s")

	w.Kubectl(t, "patch", "serviceaccount", "default", "-p", `{"imagePullSecrets":[{"name":"door"}]}`)
	sleeper("exact", "busybox@"+digest, "")
	w.Kubectl(t, "wait", "--for=condition=Ready", "pod/exact", "--timeout=50s")
	if id := w.Kubectl(t, "get", "pod", "exact", "-o", "jsonpath={.status.containerStatuses[0].imageID}"); !strings.Contains(id, digest) {
		t.Errorf("image %s, want %s", id, digest)
	}
}

// servePrivately serves private/busybox:1 in the host's namespace and returns the image's digest.
func servePrivately(t *testing.T, host netns.NS) string {
	t.Helper()
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	l, err := host.Listen(t.Context(), "tcp", registryAddr)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, word, _ := r.BasicAuth(); user != registryUser || word != registryWord {
			w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		store.ServeHTTP(w, r)
	})}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Close(); serving.Wait() })

	image, err := tarball.ImageFromPath(busybox(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(registryAddr + "/private/busybox:1")
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: host.DialContext}
	defer transport.CloseIdleConnections()
	auth := authn.FromConfig(authn.AuthConfig{Username: registryUser, Password: registryWord})
	if err := remote.Write(ref, image, remote.WithTransport(transport), remote.WithAuth(auth), remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// busybox is the archive of that image.
func busybox(t *testing.T) string {
	t.Helper()
	cache, err := recipe.Cache()
	if err != nil {
		t.Fatal(err)
	}
	files, err := recipe.Tars(t.Context(), cache, "busybox")
	if err != nil {
		t.Fatal(err)
	}
	return files["busybox"]
}
