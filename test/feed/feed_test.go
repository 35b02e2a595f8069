package feed_test

import (
	"net"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"minato/internal/source"
	"minato/internal/source/kube"
	"minato/test/feed"
)

func service(name, ip string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: []corev1.ServicePort{{Port: 80}}}}
}

func TestAClientSeesWhatIsSetBeforeAndAfterItCame(t *testing.T) {
	s := feed.New()
	s.Set(service("first", "10.96.0.1"), service("second", "10.96.0.2"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(t.Context(), l) }()
	t.Cleanup(func() { <-served })
	client, err := kube.Client(&rest.Config{Host: "http://" + l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	b := source.NewBuilder()
	ended := make(chan error, 1)
	go func() { ended <- kube.Run(t.Context(), client, b) }()
	t.Cleanup(func() { <-ended })
	expect := func(want ...string) {
		t.Helper()
		changed, cancel := b.Subscribe()
		defer cancel()
		deadline := time.After(time.Minute)
		for {
			var got []string
			for svc := range b.Current().Services() {
				got = append(got, svc.Name.Name+" "+svc.ClusterIPs[0].String())
			}
			if b.Current().Complete && slices.Equal(got, want) {
				return
			}
			select {
			case <-changed:
			case <-deadline:
				t.Fatalf("the client sees %v, want %v", got, want)
			}
		}
	}
	expect("first 10.96.0.1", "second 10.96.0.2")
	s.Set(service("third", "10.96.0.3"), service("first", "10.96.0.9"))
	expect("first 10.96.0.9", "second 10.96.0.2", "third 10.96.0.3")
	s.Delete(service("second", ""))
	expect("first 10.96.0.9", "third 10.96.0.3")
}
