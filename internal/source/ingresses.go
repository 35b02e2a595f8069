package source

import (
	"fmt"
	"reflect"
	"slices"

	"minato/internal/model"
)

// ingressKind is one bit for each kind of object that must be read once before any Ingress is shown.
type ingressKind uint8

const (
	kindIngress ingressKind = 1 << iota
	kindSecret
	kindIngressClass
)

// ingresses is every Ingress with what it takes to serve it: IngressClasses and Secrets, which may come before it.
type ingresses struct {
	missing ingressKind                          // not read once yet; nothing is shown before
	shown   bool                                 // the newest snapshot has them
	objects map[model.IngressName]*model.Ingress // without certificates, not Served
	secrets map[ObjectName]*SecretObject
	classes map[string]*ClassObject
	users   map[ObjectName]map[model.IngressName]struct{} // which Ingresses name a Secret
	dirty   map[model.IngressName]struct{}
}

func newIngresses() ingresses {
	return ingresses{
		missing: kindIngress | kindSecret | kindIngressClass,
		objects: map[model.IngressName]*model.Ingress{},
		secrets: map[ObjectName]*SecretObject{},
		classes: map[string]*ClassObject{},
		users:   map[ObjectName]map[model.IngressName]struct{}{},
		dirty:   map[model.IngressName]struct{}{},
	}
}

func secretsOf(i *model.Ingress) (names []ObjectName) {
	for _, t := range i.TLS {
		if t.Secret != "" {
			names = append(names, ObjectName{i.Name.Namespace, t.Secret})
		}
	}
	return names
}

func (w *ingresses) set(i *model.Ingress) {
	if old := w.objects[i.Name]; old != nil {
		if reflect.DeepEqual(old, i) {
			return
		}
		w.delete(i.Name)
	}
	w.objects[i.Name] = i
	for _, s := range secretsOf(i) {
		if w.users[s] == nil {
			w.users[s] = map[model.IngressName]struct{}{}
		}
		w.users[s][i.Name] = struct{}{}
	}
	w.dirty[i.Name] = struct{}{}
}

func (w *ingresses) delete(n model.IngressName) {
	old := w.objects[n]
	if old == nil {
		return
	}
	for _, s := range secretsOf(old) {
		if delete(w.users[s], n); len(w.users[s]) == 0 {
			delete(w.users, s)
		}
	}
	delete(w.objects, n)
	w.dirty[n] = struct{}{}
}

func (w *ingresses) setSecret(o *SecretObject) {
	if old := w.secrets[o.Name]; old != nil && old.equal(o) {
		return
	}
	w.secrets[o.Name] = o
	w.touchUsers(o.Name)
}

func (w *ingresses) deleteSecret(n ObjectName) {
	if w.secrets[n] != nil {
		delete(w.secrets, n)
		w.touchUsers(n)
	}
}

func (w *ingresses) touchUsers(secret ObjectName) {
	for n := range w.users[secret] {
		w.dirty[n] = struct{}{}
	}
}

// setClass changes a class; nil removes it. Classes are few and change hardly ever.
func (w *ingresses) setClass(name string, c *ClassObject) {
	old := w.classes[name]
	if old == nil && c == nil || old != nil && c != nil && *old == *c {
		return
	}
	if w.classes[name] = c; c == nil {
		delete(w.classes, name)
	}
	for n, i := range w.objects {
		if i.Class == name {
			w.dirty[n] = struct{}{}
		}
	}
}

// changed reports whether a snapshot made now would differ from the last one.
func (w *ingresses) changed() bool { return w.missing == 0 && (!w.shown || len(w.dirty) > 0) }

// commit writes what is dirty into the next snapshot.
func (w *ingresses) commit(e *model.Edit) {
	if w.missing != 0 {
		return
	}
	w.shown = true
	e.SetIngressesKnown()
	for n := range w.dirty {
		if i := w.objects[n]; i != nil {
			e.SetIngress(w.joined(i))
		} else {
			e.DeleteIngress(n)
		}
	}
	w.dirty = emptied(w.dirty)
}

// joined is the Ingress with its class looked up, and with its certificates if it is served.
func (w *ingresses) joined(i *model.Ingress) *model.Ingress {
	out := *i
	c := w.classes[i.Class]
	if out.Served = c != nil && c.Served; !out.Served {
		out.Warnings = unserved(i.Class, c)
		return &out
	}
	out.TLS = slices.Clone(i.TLS)
	out.Warnings = slices.Clip(i.Warnings)
	for k := range out.TLS {
		t := &out.TLS[k]
		if t.Secret == "" {
			continue
		}
		s := w.secrets[ObjectName{i.Name.Namespace, t.Secret}]
		switch {
		case s == nil:
			out.Warnings = append(out.Warnings, fmt.Sprintf("create Secret %s of type kubernetes.io/tls (kubectl -n %s create secret tls %[1]s --cert=FILE --key=FILE; one of another type has to go first): until it is there, the default certificate is used",
				t.Secret, i.Name.Namespace))
		case s.Certificate == nil:
			out.Warnings = append(out.Warnings, fmt.Sprintf("make Secret %s anew from a certificate and its key: it is not usable, %s; until then the default certificate is used", t.Secret, s.Problem))
		default:
			t.Certificate = s.Certificate
		}
	}
	return &out
}

// unserved warns where no controller can feel meant. What else is wrong with an Ingress of another class is for its
// own controller to say.
func unserved(class string, c *ClassObject) []string {
	switch {
	case class == "":
		return []string{"set spec.ingressClassName (kubectl get ingressclass lists what there is): without a class nobody serves it"}
	case c == nil:
		return []string{fmt.Sprintf("set spec.ingressClassName to a class that exists (kubectl get ingressclass lists them): there is no %q", class)}
	}
	return nil
}

// SetIngress puts an Ingress in the place of the one of its name.
func (b *Batch) SetIngress(i *model.Ingress) { b.w.ingresses.set(i) }

// DeleteIngress removes an Ingress.
func (b *Batch) DeleteIngress(n model.IngressName) { b.w.ingresses.delete(n) }

// ReplaceIngresses makes all the complete list of Ingresses.
func (b *Batch) ReplaceIngresses(all []*model.Ingress) {
	b.w.ingresses.missing &^= kindIngress
	keep := make(map[model.IngressName]bool, len(all))
	for _, i := range all {
		keep[i.Name] = true
		b.SetIngress(i)
	}
	for n := range b.w.ingresses.objects {
		if !keep[n] {
			b.DeleteIngress(n)
		}
	}
}

// SetSecret puts a Secret in the place of the one of its name.
func (b *Batch) SetSecret(s *SecretObject) { b.w.ingresses.setSecret(s) }

// DeleteSecret removes a Secret.
func (b *Batch) DeleteSecret(n ObjectName) { b.w.ingresses.deleteSecret(n) }

// ReplaceSecrets makes all the complete list of Secrets of type kubernetes.io/tls.
func (b *Batch) ReplaceSecrets(all []*SecretObject) {
	b.w.ingresses.missing &^= kindSecret
	keep := make(map[ObjectName]bool, len(all))
	for _, s := range all {
		keep[s.Name] = true
		b.SetSecret(s)
	}
	for n := range b.w.ingresses.secrets {
		if !keep[n] {
			b.DeleteSecret(n)
		}
	}
}

// SetIngressClass puts an IngressClass in the place of the one of its name.
func (b *Batch) SetIngressClass(c *ClassObject) { b.w.ingresses.setClass(c.Name, c) }

// DeleteIngressClass removes an IngressClass.
func (b *Batch) DeleteIngressClass(name string) { b.w.ingresses.setClass(name, nil) }

// ReplaceIngressClasses makes all the complete list of IngressClasses.
func (b *Batch) ReplaceIngressClasses(all []*ClassObject) {
	b.w.ingresses.missing &^= kindIngressClass
	keep := make(map[string]bool, len(all))
	for _, c := range all {
		keep[c.Name] = true
		b.SetIngressClass(c)
	}
	for name := range b.w.ingresses.classes {
		if !keep[name] {
			b.DeleteIngressClass(name)
		}
	}
}
