package tutorial

import (
	"strings"
	"testing"
)

const (
	readyPod   = `{"metadata":{"name":"a"},"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`
	pullingPod = `{"metadata":{"name":"b"},"status":{"phase":"Pending","containerStatuses":[{"state":{"waiting":{"reason":"ImagePullBackOff"}}}]}}`
	homeless   = `{"metadata":{"name":"c"},"status":{"phase":"Pending","conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable"}]}}`
	endingPod  = `{"metadata":{"name":"d","deletionTimestamp":"now"},"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`
)

func items(all ...string) string { return `{"items":[` + strings.Join(all, ",") + `]}` }

// A difference is judged by the words that a person needs; an empty one means: as wanted.
func TestChecksSayWhatIsDifferent(t *testing.T) {
	sep := Separator
	for _, c := range []struct {
		check  string
		answer Answer
		en, ja string
	}{
		{"pods app=x 1", Answer{Out: items(readyPod)}, "", ""},
		{"pods app=x 2", Answer{Out: items(readyPod, pullingPod)}, "1 ready; not ready: b (ImagePullBackOff). The image cannot be pulled", "1 個が Ready、まだなのは b (ImagePullBackOff)。イメージを取得できません"},
		{"pods app=x 1", Answer{Out: items(homeless)}, "c (Unschedulable)", "c (Unschedulable)"},
		{"pods app=x 1", Answer{Out: items(readyPod, endingPod)}, "d (Terminating)", "d (Terminating)"},
		{"pods app=x 1", Answer{Out: items(readyPod, readyPod)}, "2 ready", "2 個が Ready"},
		{"pods app=x 1", Answer{Code: 1, Err: "E1\nthe server is gone\n"}, "it cannot be asked: the server is gone", "問い合わせに失敗しました"},
		{"field svc/x .spec.type NodePort", Answer{Out: "NodePort"}, "", ""},
		{"field svc/x .spec.type NodePort", Answer{Out: "ClusterIP"}, "it is ClusterIP", "ClusterIP になっています"},
		{"field svc/x .spec.type NodePort", Answer{}, "it is not there", "見つかりません"},
		{"absent pod/x", Answer{}, "", ""},
		{"absent pod/x", Answer{Out: "pod/x"}, "still there", "まだ存在します"},
		{"endpoints x 2", Answer{Out: items(`{"endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true}},{"addresses":["10.0.0.2"],"conditions":{"ready":false}}]}`)}, "1: 10.0.0.1", "1 個: 10.0.0.1"},
		{"endpoints x 1", Answer{Out: items(`{"endpoints":[{"addresses":["10.0.0.1"]}]}`)}, "", ""},
		{"endpoints x 1", Answer{Out: items()}, "selector matches no ready pod", "セレクターに合う"},
		{"explain x:80 - delivered 1", Answer{Out: `{"verdict":"delivered","backends":[{"address":"10.0.0.1:80"}]}`}, "", ""},
		{"explain x:80 - delivered 2", Answer{Out: `{"verdict":"delivered","backends":[{"address":"10.0.0.1:80"}]}`}, "delivered, to 1", "行き先は 1 個"},
		{"explain x:80 - delivered 1", Answer{Out: `{"verdict":"delivered","backends":[{"address":"10.0.0.1:80"}],"kernel":["slot 1 is missing"]}`}, "not there yet: slot 1", "反映されていません"},
		{"explain http://x/ lan delivered 1", Answer{Out: `{"verdict":"delivered","backends":[{},{}],"http":{"backends":[{"address":"10.0.0.1:80"}]}}`}, "", ""},
		{"explain x:80 lan dropped", Answer{Code: 3, Out: `{"verdict":"refused","reason":"no backend"}`}, "refused: no backend", "refused: no backend"},
		{"explain x:80 lan dropped", Answer{Code: 4, Out: `{"verdict":"dropped","reason":"policy"}`}, "", ""},
		{"answers lan http://x 2", Answer{Out: "a\n" + sep + "b\n" + sep + "a" + sep}, "", ""},
		{"answers lan http://x 2", Answer{Out: "a" + sep + "a" + sep}, "1 different answers: a", "1 種類の答え: a"},
		{"answers lan http://x 2", Answer{Out: "a" + sep + "b" + sep + sep}, "1 requests were not answered", "1 回のリクエスト"},
		{"answers lan http://x 1", Answer{}, "no answer", "応答がありません"},
		{"silent lan http://x", Answer{Out: sep}, "", ""},
		{"silent lan http://x", Answer{Out: "a" + sep}, "it answers: a", "応答があります: a"},
		{"names deploy/d x 1", Answer{Out: "alias.example.\n10.0.0.1\n"}, "", ""},
		{"names deploy/d x 0", Answer{Out: ";; nothing\n"}, "", ""},
		{"names deploy/d x 0", Answer{Code: 9, Out: ";; no servers could be reached\n"}, "", ""},
		{"names deploy/d x 0", Answer{Code: 9, Out: "10.0.0.1\n"}, "1: 10.0.0.1", "1 個: 10.0.0.1"},
		{"names deploy/d x 1", Answer{Code: 9, Err: "no servers could be reached"}, "no servers", "no servers"},
		{"names deploy/d x 2", Answer{Out: "10.0.0.1\n"}, "1: 10.0.0.1", "1 個: 10.0.0.1"},
		{"names deploy/d x 2", Answer{}, "not found", "見つかりません"},
		{"prints ^1\\d$ $ echo 12", Answer{Out: "12\n"}, "", ""},
		{"prints ^1\\d$ $ echo 12", Answer{Out: "21"}, "it prints\n21", "21"},
	} {
		check, err := ParseCheck(c.check)
		if err != nil {
			t.Errorf("%s: %v", c.check, err)
			continue
		}
		for lang, want := range map[Lang]string{English: c.en, Japanese: c.ja} {
			got := check.Judge(lang, c.answer)
			if want == "" && got != "" || !strings.Contains(got, want) {
				t.Errorf("%s, %+v: %q, want %q", c.check, c.answer, got, want)
			}
			if text := check.Want(lang); text == "" || strings.Contains(text, "%!") {
				t.Errorf("%s wants %q", c.check, text)
			}
		}
	}
}

func TestChecksAskInTheNamespaceOfTheLesson(t *testing.T) {
	for line, want := range map[string]string{
		"pods app=x 1":             "kubectl -n ns get pods -l app=x -o json",
		"field svc/x .a b":         "kubectl -n ns get svc/x --ignore-not-found -o jsonpath={.a}",
		"explain x:80 lan dropped": "minato explain x:80 -n ns -o json --from lan",
		"explain x:80 - dropped":   "minato explain x:80 -n ns -o json",
		"names deploy/d x 1":       "kubectl -n ns exec deploy/d -- dig +search +short +tries=1 +time=2 x A x AAAA",
	} {
		check, err := ParseCheck(line)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(check.Ask("ns").Argv, " "); got != want {
			t.Errorf("%s asks\n%s, want\n%s", line, got, want)
		}
	}
	via, err := ParseCheck("answers lan http://x/blog/@10.0.0.1 1")
	if err != nil {
		t.Fatal(err)
	}
	if q := via.Ask("ns"); q.URL != "http://x/blog/" || q.Via != "10.0.0.1" || q.Times < 4 {
		t.Errorf("asks %+v", q)
	}
}
