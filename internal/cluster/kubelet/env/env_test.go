package env

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func service(namespace, name, ip string, ports ...v1.ServicePort) *v1.Service {
	return &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1.ServiceSpec{ClusterIP: ip, Ports: ports}}
}

func port(name string, number int32, protocol v1.Protocol) v1.ServicePort {
	return v1.ServicePort{Name: name, Port: number, Protocol: protocol}
}

func sources() Sources {
	return Sources{
		Services: []*v1.Service{
			service("default", "kubernetes", "10.96.0.1", port("https", 443, v1.ProtocolTCP)),
			service("app", "my-db", "10.96.0.2", port("sql", 5432, v1.ProtocolTCP), port("stats", 9000, v1.ProtocolUDP)),
			service("app", "headless", v1.ClusterIPNone, port("", 80, v1.ProtocolTCP)),
			service("app", "external", "", port("", 80, v1.ProtocolTCP)),
			service("other", "unseen", "10.96.0.9", port("", 80, v1.ProtocolTCP)),
		},
		ConfigMap: func(_, name string) (*v1.ConfigMap, error) {
			if name != "settings" {
				return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
			}
			return &v1.ConfigMap{Data: map[string]string{"color": "blue", "shape": "round"}}, nil
		},
		Secret: func(_, name string) (*v1.Secret, error) {
			switch name {
			case "key":
				return &v1.Secret{Data: map[string][]byte{"word": []byte("open"), "color": []byte("red")}}, nil
			case "locked":
				return nil, errors.New("the API is away")
			}
			return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
		},
		Allocatable: v1.ResourceList{v1.ResourceCPU: resource.MustParse("4"), v1.ResourceMemory: resource.MustParse("8Gi")},
		HostIPs:     []netip.Addr{netip.MustParseAddr("172.30.0.11"), netip.MustParseAddr("fd00::11")},
		PodIPs:      []string{"10.244.1.5", "fd01::5"},
	}
}

func pod(links bool, env ...v1.EnvVar) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "p", UID: "u", Labels: map[string]string{"a": "1"}},
		Spec: v1.PodSpec{EnableServiceLinks: &links, NodeName: "node1", ServiceAccountName: "robot", Containers: []v1.Container{{
			Name: "c", Env: env, Resources: v1.ResourceRequirements{Limits: v1.ResourceList{v1.ResourceCPU: resource.MustParse("1500m")}},
		}}},
	}
}

func vars(t *testing.T, p *v1.Pod) []string {
	t.Helper()
	list, err := sources().Vars(p, &p.Spec.Containers[0])
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, v := range list {
		texts = append(texts, v.Name+"="+v.Value)
	}
	if !slices.IsSorted(texts) {
		t.Errorf("not sorted: %v", texts)
	}
	return texts
}

func TestServiceVariables(t *testing.T) {
	kubernetes := `KUBERNETES_PORT=tcp://10.96.0.1:443
KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443
KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1
KUBERNETES_PORT_443_TCP_PORT=443
KUBERNETES_PORT_443_TCP_PROTO=tcp
KUBERNETES_SERVICE_HOST=10.96.0.1
KUBERNETES_SERVICE_PORT=443
KUBERNETES_SERVICE_PORT_HTTPS=443`
	db := `MY_DB_PORT=tcp://10.96.0.2:5432
MY_DB_PORT_5432_TCP=tcp://10.96.0.2:5432
MY_DB_PORT_5432_TCP_ADDR=10.96.0.2
MY_DB_PORT_5432_TCP_PORT=5432
MY_DB_PORT_5432_TCP_PROTO=tcp
MY_DB_PORT_9000_UDP=udp://10.96.0.2:9000
MY_DB_PORT_9000_UDP_ADDR=10.96.0.2
MY_DB_PORT_9000_UDP_PORT=9000
MY_DB_PORT_9000_UDP_PROTO=udp
MY_DB_SERVICE_HOST=10.96.0.2
MY_DB_SERVICE_PORT=5432
MY_DB_SERVICE_PORT_SQL=5432
MY_DB_SERVICE_PORT_STATS=9000`
	if got := strings.Join(vars(t, pod(true)), "\n"); got != kubernetes+"\n"+db {
		t.Errorf("with links:\n%s", got)
	}
	if got := strings.Join(vars(t, pod(false)), "\n"); got != kubernetes {
		t.Errorf("without links:\n%s", got)
	}
}

func TestAServiceOfTheNamespaceCalledKubernetesWins(t *testing.T) {
	src := sources()
	src.Services = append(src.Services, service("app", "kubernetes", "10.96.0.99", port("", 1, v1.ProtocolTCP)))
	for range 2 { // in either order
		p := pod(true)
		list, err := src.Vars(p, &p.Spec.Containers[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range list {
			if v.Name == "KUBERNETES_SERVICE_HOST" && v.Value != "10.96.0.99" {
				t.Errorf("host is %s", v.Value)
			}
		}
		slices.Reverse(src.Services)
	}
}

func TestEnvWinsOverEnvFromWinsOverServices(t *testing.T) {
	p := pod(true, v1.EnvVar{Name: "S_word", Value: "mine"})
	yes := true
	p.Spec.Containers[0].EnvFrom = []v1.EnvFromSource{
		{ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}}},
		{Prefix: "S_", SecretRef: &v1.SecretEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "key"}}},
		{SecretRef: &v1.SecretEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "key"}}},
		{ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "none"}, Optional: &yes}},
		{Prefix: "MY_DB_SERVICE_", ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}}},
	}
	got := vars(t, p)
	for _, want := range []string{"S_word=mine", "S_color=red", "color=red", "shape=round", "word=open", "MY_DB_SERVICE_color=blue", "MY_DB_SERVICE_HOST=10.96.0.2"} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s in %v", want, got)
		}
	}
}

func TestReferencesExpandWhatComesBeforeThemAndServices(t *testing.T) {
	got := vars(t, pod(true,
		v1.EnvVar{Name: "A", Value: "1"}, v1.EnvVar{Name: "B", Value: "$(A)-$(MY_DB_SERVICE_HOST)-$(LATER)-$$(A)-$(A"}, v1.EnvVar{Name: "LATER", Value: "2"}))
	if want := "B=1-10.96.0.2-$(LATER)-$(A)-$(A"; !slices.Contains(got, want) {
		t.Errorf("no %s in %v", want, got)
	}
}

func TestValueFrom(t *testing.T) {
	field := func(path string) *v1.EnvVarSource {
		return &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}
	}
	limit := func(name, divisor string) *v1.EnvVarSource {
		return &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: name, Divisor: resource.MustParse(divisor)}}
	}
	configMap := func(name, key string, optional bool) *v1.EnvVarSource {
		return &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: name}, Key: key, Optional: &optional}}
	}
	secret := func(name, key string, optional bool) *v1.EnvVarSource {
		return &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: name}, Key: key, Optional: &optional}}
	}
	const none, failed = "(none)", "(error)"
	for name, c := range map[string]struct {
		from *v1.EnvVarSource
		want string
	}{
		"name":                        {field("metadata.name"), "p"},
		"namespace":                   {field("metadata.namespace"), "app"},
		"uid":                         {field("metadata.uid"), "u"},
		"label":                       {field("metadata.labels['a']"), "1"},
		"node":                        {field("spec.nodeName"), "node1"},
		"service account":             {field("spec.serviceAccountName"), "robot"},
		"host IP":                     {field("status.hostIP"), "172.30.0.11"},
		"host IPs":                    {field("status.hostIPs"), "172.30.0.11,fd00::11"},
		"pod IP":                      {field("status.podIP"), "10.244.1.5"},
		"pod IPs":                     {field("status.podIPs"), "10.244.1.5,fd01::5"},
		"unknown field":               {field("spec.nonsense"), failed},
		"CPU limit":                   {limit("limits.cpu", "1m"), "1500"},
		"CPU limit, rounded up":       {limit("limits.cpu", "1"), "2"},
		"memory limit of the node":    {limit("limits.memory", "1Gi"), "8"},
		"ConfigMap key":               {configMap("settings", "color", false), "blue"},
		"missing ConfigMap":           {configMap("none", "color", false), failed},
		"missing, optional ConfigMap": {configMap("none", "color", true), none},
		"missing key":                 {configMap("settings", "size", false), failed},
		"missing, optional key":       {configMap("settings", "size", true), none},
		"Secret key":                  {secret("key", "word", false), "open"},
		"missing Secret":              {secret("none", "word", false), failed},
		"missing, optional Secret":    {secret("none", "word", true), none},
		"optional, but the API fails": {secret("locked", "word", true), failed},
	} {
		t.Run(name, func(t *testing.T) {
			p := pod(false, v1.EnvVar{Name: "V", ValueFrom: c.from})
			list, err := sources().Vars(p, &p.Spec.Containers[0])
			got := none
			if err != nil {
				got = failed
			}
			for _, v := range list {
				if v.Name == "V" {
					got = v.Value
				}
			}
			if got != c.want {
				t.Errorf("got %s (%v), want %s", got, err, c.want)
			}
		})
	}
}
