package tutorial

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Check is something that must be true of the cluster. Its methods are pure.
type Check interface {
	// Ask is what to ask to know it, of a lesson that works in this namespace.
	Ask(namespace string) Question
	// Want says in words what must be.
	Want(Lang) string
	// Judge says in words what the answer shows instead, and nothing if it is as wanted.
	Judge(Lang, Answer) string
}

// Question is one of three: a command (kubectl or minato, first of Argv, for the instance in question), a line of
// shell, or a URL to get from the host.
type Question struct {
	Argv  []string
	Line  string
	URL   string
	Via   string // address to connect to for the URL; empty: that of its host
	Times int    // how often to get the URL
}

// Answer is what a command printed, and its exit code; of a URL the bodies, each followed by Separator, empty where
// there was no answer.
type Answer struct {
	Out, Err string
	Code     int
}

// Separator stands behind each body of an Answer to several requests.
const Separator = "\x1e"

// ParseCheck reads a check as lessons write it. Its words are
//
//	pods SELECTOR N            N pods of the selector are there, all ready
//	field KIND/NAME PATH TEXT  the field at the JSONPath is TEXT
//	absent KIND/NAME           there is no such object
//	endpoints SERVICE N        N endpoints of the Service are ready
//	explain DEST FROM VERDICT [N]   what minato explain says, with N backends
//	answers FROM URL N         requests are answered in N different ways: as a rule, by N pods
//	silent FROM URL            requests are not answered
//	names FROM NAME N          the name has N addresses
//	prints REGEXP $ COMMAND    the command prints what matches
//
// where FROM is lan, or what `kubectl exec` takes; of explain also nobody in particular (-). A URL from the LAN may end
// in @ADDRESS, where to connect to.
func ParseCheck(line string) (Check, error) {
	kind, rest, _ := strings.Cut(line, " ")
	w := strings.Fields(rest)
	number := func(i int) int {
		n, err := strconv.Atoi(w[i])
		if err != nil {
			return -1
		}
		return n
	}
	var c Check
	n := 0
	switch {
	case kind == "pods" && len(w) == 2:
		n = number(1)
		c = pods{w[0], n}
	case kind == "field" && len(w) >= 3:
		c = field{w[0], w[1], strings.Join(w[2:], " ")}
	case kind == "absent" && len(w) == 1:
		c = absent{w[0]}
	case kind == "endpoints" && len(w) == 2:
		n = number(1)
		c = endpoints{w[0], n}
	case kind == "explain" && len(w) == 3:
		c = explained{w[0], w[1], w[2], -1}
	case kind == "explain" && len(w) == 4:
		n = number(3)
		c = explained{w[0], w[1], w[2], n}
	case kind == "answers" && len(w) == 3:
		n = number(2)
		c = answers{w[0], w[1], n}
	case kind == "silent" && len(w) == 2:
		c = silent{w[0], w[1]}
	case kind == "names" && len(w) == 3:
		n = number(2)
		c = names{w[0], w[1], n}
	case kind == "prints":
		return parsePrints(rest)
	}
	if c == nil || n < 0 {
		return nil, fmt.Errorf("there is no check such as %q", line)
	}
	return c, nil
}

func parsePrints(rest string) (Check, error) {
	pattern, command, ok := strings.Cut(rest, " $ ")
	if !ok {
		return nil, fmt.Errorf("write prints REGEXP $ COMMAND: %q", rest)
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("pattern of prints: %w", err)
	}
	return prints{re, command}, nil
}

// kubectl asks for an object or objects.
func kubectl(namespace string, args ...string) Question {
	return Question{Argv: append([]string{"kubectl", "-n", namespace}, args...)}
}

// failed is what went wrong with a command that should have printed something.
func failed(l Lang, a Answer) string {
	return l.Say("it cannot be asked: %s", "問い合わせに失敗しました: %s", lastLine(a.Err))
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}
