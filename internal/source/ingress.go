package source

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"minato/internal/model"
)

// IngressController is spec.controller of the IngressClasses whose Ingresses minato serves.
const IngressController = "minato.io/ingress"

// annotationClass names the class of an Ingress from before IngressClasses. Where it is there, it counts.
const annotationClass = "kubernetes.io/ingress.class"

// nginx begins the annotations of ingress-nginx, of which minato knows some.
const nginx = "nginx.ingress.kubernetes.io/"

// Ingress converts an API object. It is pure and never fails: what cannot be used is left out, and a Warning says so.
// Served and the certificates are not known to the object alone and stay empty.
func Ingress(o *networkingv1.Ingress) *model.Ingress {
	var w warnings
	out := &model.Ingress{
		Name: model.IngressName{Namespace: o.Namespace, Name: o.Name}, UID: string(o.UID),
		Created: o.CreationTimestamp.Time, Class: class(o),
	}
	if d := o.Spec.DefaultBackend; d != nil {
		b := backend(d, "defaultBackend", &w)
		out.Default = &b
	}
	for i := range o.Spec.Rules {
		out.Rules = append(out.Rules, rule(&o.Spec.Rules[i], &w))
	}
	for _, t := range o.Spec.TLS {
		out.TLS = append(out.TLS, model.IngressTLS{Hosts: lower(t.Hosts), Secret: t.SecretName})
	}
	for _, in := range o.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(in.IP); err == nil {
			out.Addrs = append(out.Addrs, a.Unmap())
		}
	}
	annotations(out, o.Annotations, &w)
	out.Warnings = w.all()
	return out
}

func class(o *networkingv1.Ingress) string {
	if c := o.Annotations[annotationClass]; c != "" {
		return c
	}
	return value(o.Spec.IngressClassName)
}

func lower(hosts []string) []string {
	out := make([]string, 0, len(hosts))
	for _, h := range hosts {
		out = append(out, strings.ToLower(h))
	}
	return out
}

func rule(r *networkingv1.IngressRule, w *warnings) model.IngressRule {
	out := model.IngressRule{Host: strings.ToLower(r.Host)}
	if r.HTTP == nil {
		return out
	}
	for i := range r.HTTP.Paths {
		p := &r.HTTP.Paths[i]
		path := model.IngressPath{Path: cmp.Or(p.Path, "/"), Backend: backend(&p.Backend, "path "+p.Path, w)}
		if p.PathType != nil && *p.PathType == networkingv1.PathTypeExact {
			path.Type = model.PathExact
		}
		out.Paths = append(out.Paths, path)
	}
	return out
}

func backend(b *networkingv1.IngressBackend, where string, w *warnings) model.IngressBackend {
	if b.Service == nil {
		w.addf("%s: its backend is not a Service: name a Service, because nothing else can be reached", where)
		return model.IngressBackend{}
	}
	out := model.IngressBackend{Service: b.Service.Name, PortName: b.Service.Port.Name}
	if out.PortName == "" {
		var ok bool
		if out.Port, ok = parsePort(b.Service.Port.Number); !ok {
			w.addf("%s: port %d of Service %s is not a port", where, b.Service.Port.Number, b.Service.Name)
			return model.IngressBackend{}
		}
	}
	return out
}

// annotations reads those of ingress-nginx that minato knows, and says which it does not: an Ingress that was made
// for ingress-nginx must not differ in silence.
func annotations(out *model.Ingress, all map[string]string, w *warnings) {
	flag := func(name string) (on, given bool) {
		s, given := all[nginx+name]
		on, err := strconv.ParseBool(s)
		if given && err != nil {
			w.addf(`annotation %s is %q: write "true" or "false"`, nginx+name, s)
		}
		return on, given && err == nil
	}
	if on, given := flag("ssl-redirect"); given && !on {
		out.Redirect = model.RedirectNever
	}
	if on, given := flag("force-ssl-redirect"); given && on {
		out.Redirect = model.RedirectAlways
	}
	if s, given := all[nginx+"proxy-body-size"]; given {
		n, err := byteSize(s)
		if err != nil {
			w.addf(`annotation %sproxy-body-size is %q: write a size like "8m", or "0" for no limit`, nginx, s)
		}
		out.MaxBody = n
	}
	known := []string{"ssl-redirect", "force-ssl-redirect", "proxy-body-size"}
	var others []string
	for name := range all {
		if short, ok := strings.CutPrefix(name, nginx); ok && !slices.Contains(known, short) {
			others = append(others, short)
		}
	}
	if slices.Sort(others); len(others) > 0 {
		w.addf("without effect: annotations %s* that minato does not know: %s", nginx, strings.Join(others, ", "))
	}
}

// byteSize reads a size as nginx writes it: a number with k, m or g of 1024.
func byteSize(s string) (int64, error) {
	s = strings.TrimSpace(s)
	if n := len(s); n > 0 && strings.ContainsRune("kKmMgG", rune(s[n-1])) {
		s = s[:n-1] + strings.ToUpper(s[n-1:]) + "i"
	}
	q, err := resource.ParseQuantity(s)
	return max(q.Value(), 0), err
}
