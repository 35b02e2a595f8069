package tutorial

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// lan is the origin of what comes from outside of the cluster: the host.
const lan = "lan"

// explained is what minato explain says.
type explained struct {
	dest, from, verdict string
	n                   int // backends; -1 any number
}

func (c explained) Ask(namespace string) Question {
	argv := []string{"minato", "explain", c.dest, "-n", namespace, "-o", "json"}
	if c.from != "-" {
		argv = append(argv, "--from", c.from)
	}
	return Question{Argv: argv}
}

func (c explained) Want(l Lang) string {
	if c.n < 0 {
		return l.Say("`minato explain %s` says %s", "`minato explain %s` の結論が %s", c.dest, c.verdict)
	}
	return l.Say("`minato explain %s` says %s, to %d backends", "`minato explain %s` の結論が %s で、行き先が %d 個", c.dest, c.verdict, c.n)
}

func (c explained) Judge(l Lang, a Answer) string {
	var r struct {
		Verdict, Reason string
		Backends        []struct{ Address string }
		HTTP            *struct{ Backends []struct{ Address string } }
		Kernel          []string
	}
	if err := json.Unmarshal([]byte(a.Out), &r); err != nil {
		return failed(l, a)
	}
	backends := r.Backends
	if r.HTTP != nil {
		backends = r.HTTP.Backends
	}
	switch {
	case len(r.Kernel) > 0:
		return l.Say("the node's kernel is not there yet: %s", "ノードのカーネルにまだ反映されていません: %s", r.Kernel[0])
	case r.Verdict != c.verdict && r.Reason != "":
		return r.Verdict + ": " + r.Reason
	case r.Verdict != c.verdict:
		return r.Verdict
	case c.n >= 0 && len(backends) != c.n:
		return l.Say("%s, to %d", "%s で、行き先は %d 個", r.Verdict, len(backends))
	}
	return ""
}

// answers of n kinds come.
type answers struct {
	from, url string
	n         int
}

// Ask asks so often that a fair choice misses one of n only once in some ten thousand times.
func (c answers) Ask(namespace string) Question { return get(namespace, c.from, c.url, 12*c.n-8) }

func (c answers) Want(l Lang) string {
	if c.n == 1 {
		return l.Say("%s answers, always the same", "%s がいつも同じ答えを返す", c.url)
	}
	return l.Say("%s is answered by %d pods, in turn by chance", "%s に %d 個の Pod が代わる代わる答える", c.url, c.n)
}

func (c answers) Judge(l Lang, a Answer) string {
	kinds, missed := distinct(a)
	switch {
	case len(kinds) == 0:
		return l.Say("no answer", "応答がありません")
	case missed > 0:
		return l.Say("%d requests were not answered", "%d 回のリクエストに応答がありませんでした", missed)
	case len(kinds) != c.n:
		return l.Say("%d different answers: %s", "%d 種類の答え: %s", len(kinds), strings.Join(kinds, ", "))
	}
	return ""
}

// silent is what nobody answers.
type silent struct{ from, url string }

func (c silent) Ask(namespace string) Question { return get(namespace, c.from, c.url, 1) }
func (c silent) Want(l Lang) string {
	return l.Say("%s does not answer", "%s が応答しない", c.url)
}
func (c silent) Judge(l Lang, a Answer) string {
	if kinds, _ := distinct(a); len(kinds) > 0 {
		return l.Say("it answers: %s", "応答があります: %s", kinds[0])
	}
	return ""
}

// get asks for a URL, from the host or in a pod.
func get(namespace, from, url string, times int) Question {
	if from == lan {
		url, via, _ := strings.Cut(url, "@")
		return Question{URL: url, Via: via, Times: times}
	}
	script := fmt.Sprintf(`for i in $(seq %d); do curl -s -m 2 %s || n=x; printf '\036'; [ -z "$n" ] || break; done`, times, url)
	return kubectl(namespace, "exec", from, "--", "sh", "-c", script)
}

// distinct are the first lines of the answers, each once, and how many requests were not answered.
func distinct(a Answer) (kinds []string, missed int) {
	bodies := strings.Split(a.Out, Separator)
	for _, body := range bodies[:len(bodies)-1] {
		first, _, _ := strings.Cut(strings.TrimSpace(body), "\n")
		if first == "" {
			missed++
		} else if !slices.Contains(kinds, first) {
			kinds = append(kinds, first)
		}
	}
	slices.Sort(kinds)
	return kinds, missed
}

// names has so many addresses.
type names struct {
	from, name string
	n          int
}

func (c names) Ask(namespace string) Question {
	return kubectl(namespace, "exec", c.from, "--", "dig", "+search", "+short", "+tries=1", "+time=2", c.name, "A", c.name, "AAAA")
}

func (c names) Want(l Lang) string {
	if c.n == 0 {
		return l.Say("the name %s is not found", "名前 %s が見つからない", c.name)
	}
	return l.Say("the name %s has %d addresses", "名前 %s を引くとアドレスが %d 個", c.name, c.n)
}

// noReply is how dig ends when the last name that it tries, the bare one, is for an upstream server that does not
// answer: on a machine without a way out the name is not found all the same.
const noReply = 9

func (c names) Judge(l Lang, a Answer) string {
	if a.Code != 0 && (a.Code != noReply || c.n != 0) {
		return failed(l, a)
	}
	var addrs []string
	for line := range strings.Lines(a.Out) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasSuffix(line, ".") && !strings.HasPrefix(line, ";") {
			addrs = append(addrs, line)
		}
	}
	switch {
	case len(addrs) == c.n:
		return ""
	case len(addrs) == 0:
		return l.Say("the name is not found", "名前が見つかりません")
	}
	return l.Say("%d: %s", "%d 個: %s", len(addrs), strings.Join(addrs, ", "))
}

// prints is a command that prints something.
type prints struct {
	pattern *regexp.Regexp
	command string
}

func (c prints) Ask(string) Question { return Question{Line: c.command} }
func (c prints) Want(l Lang) string {
	return l.Say("`%s` prints %s", "`%s` の出力に %s がある", c.command, c.pattern)
}
func (c prints) Judge(l Lang, a Answer) string {
	switch out := strings.TrimSpace(a.Out + a.Err); {
	case c.pattern.MatchString(out):
		return ""
	case out == "":
		return l.Say("it prints nothing", "何も出力されません")
	default:
		return l.Say("it prints\n%s", "出力は次のとおりです\n%s", out)
	}
}
