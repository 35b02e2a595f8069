package tutorial

import (
	"encoding/json"
	"strings"
)

// pods of a selector are there, all of them ready, and no others.
type pods struct {
	selector string
	n        int
}

func (c pods) Ask(namespace string) Question {
	return kubectl(namespace, "get", "pods", "-l", c.selector, "-o", "json")
}

func (c pods) Want(l Lang) string {
	return l.Say("%d ready pods with the label %s", "ラベル %[2]s の Pod が %[1]d 個 Ready", c.n, c.selector)
}

// podList is as much of a list of pods as is looked at.
type podList struct {
	Items []struct {
		Metadata struct {
			Name              string
			DeletionTimestamp string
		}
		Status struct {
			Phase, Reason     string
			Conditions        []struct{ Type, Status, Reason string }
			ContainerStatuses []struct {
				State struct{ Waiting *struct{ Reason string } }
			}
		}
	}
}

func (c pods) Judge(l Lang, a Answer) string {
	var list podList
	if a.Code != 0 || json.Unmarshal([]byte(a.Out), &list) != nil {
		return failed(l, a)
	}
	ready := 0
	var not []string
	for _, p := range list.Items {
		why := p.Status.Phase
		for _, s := range p.Status.ContainerStatuses {
			if s.State.Waiting != nil && s.State.Waiting.Reason != "" {
				why = s.State.Waiting.Reason
			}
		}
		isReady := false
		for _, cond := range p.Status.Conditions {
			isReady = isReady || cond.Type == "Ready" && cond.Status == "True"
			if cond.Type == "PodScheduled" && cond.Status == "False" {
				why = cond.Reason
			}
		}
		switch {
		case p.Metadata.DeletionTimestamp != "":
			not = append(not, p.Metadata.Name+" (Terminating)")
		case isReady:
			ready++
		default:
			not = append(not, p.Metadata.Name+" ("+why+")")
		}
	}
	if ready == c.n && len(not) == 0 {
		return ""
	}
	found := l.Say("%d ready", "%d 個が Ready", ready)
	if len(not) > 0 {
		found += l.Say("; not ready: %s", "、まだなのは %s", strings.Join(not, ", "))
	}
	if strings.Contains(found, "ImagePull") {
		found += l.Say(". The image cannot be pulled: without a registry at hand,\n`minato image load FILE.tar` loads it (`make images` makes those of the lessons)",
			"。イメージを取得できません。\nレジストリに届かないときは `minato image load FILE.tar` で読み込めます\n(ここで使うイメージは `make images` で作れます)")
	}
	return found
}

// field of an object has a value.
type field struct{ object, path, value string }

func (c field) Ask(namespace string) Question {
	return kubectl(namespace, "get", c.object, "--ignore-not-found", "-o", "jsonpath={"+c.path+"}")
}

func (c field) Want(l Lang) string {
	return l.Say("%s of %s is %s", "%[2]s の %[1]s が %[3]s", c.path, c.object, c.value)
}

func (c field) Judge(l Lang, a Answer) string {
	switch got := strings.TrimSpace(a.Out); {
	case a.Code != 0:
		return failed(l, a)
	case got == c.value:
		return ""
	case got == "":
		return l.Say("it is not there", "見つかりません")
	default:
		return l.Say("it is %s", "%s になっています", got)
	}
}

// absent is an object that is not there.
type absent struct{ object string }

func (c absent) Ask(namespace string) Question {
	return kubectl(namespace, "get", c.object, "--ignore-not-found", "-o", "name")
}
func (c absent) Want(l Lang) string {
	return l.Say("there is no %s", "%s が存在しない", c.object)
}
func (c absent) Judge(l Lang, a Answer) string {
	switch {
	case a.Code != 0:
		return failed(l, a)
	case strings.TrimSpace(a.Out) != "":
		return l.Say("it is still there", "まだ存在します")
	}
	return ""
}

// endpoints of a Service are ready.
type endpoints struct {
	service string
	n       int
}

func (c endpoints) Ask(namespace string) Question {
	return kubectl(namespace, "get", "endpointslices", "-l", "kubernetes.io/service-name="+c.service, "-o", "json")
}

func (c endpoints) Want(l Lang) string {
	return l.Say("Service %s has %d ready endpoints", "Service %s の Ready なエンドポイントが %d 個", c.service, c.n)
}

func (c endpoints) Judge(l Lang, a Answer) string {
	var list struct {
		Items []struct {
			Endpoints []struct {
				Addresses  []string
				Conditions struct{ Ready *bool }
			}
		}
	}
	if a.Code != 0 || json.Unmarshal([]byte(a.Out), &list) != nil {
		return failed(l, a)
	}
	var ready []string
	for _, slice := range list.Items {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				ready = append(ready, e.Addresses...)
			}
		}
	}
	switch {
	case len(ready) == c.n:
		return ""
	case len(ready) == 0:
		return l.Say("it has none: its selector matches no ready pod, or there is no such Service",
			"ひとつもありません。セレクターに合う Ready な Pod がないか、Service そのものがありません")
	}
	return l.Say("%d: %s", "%d 個: %s", len(ready), strings.Join(ready, ", "))
}
