package run

import (
	"testing"

	"minato/internal/model"
)

func TestAnEmptyListOfFlowsSaysWhy(t *testing.T) {
	web := model.ServiceName{Namespace: "default", Name: "web"}
	for _, c := range []struct {
		svc  *model.Service
		want string
	}{
		{nil, "no connection to a Service is open or remembered"},
		{&model.Service{Name: web}, "no connection to default/web is open or remembered"},
		{&model.Service{Name: web, Headless: true}, "default/web is headless: clients connect to its pods, and no connection passes it"},
		{&model.Service{Name: web, Type: model.TypeExternalName, ExternalName: "example.com"}, "default/web is a name for example.com: no connection passes it"},
	} {
		if got := noFlows(c.svc); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
