package corefile

import (
	"slices"
	"strconv"
	"strings"

	"minato/internal/dns/server"
)

var matchKinds = map[string]server.MatchKind{
	"exact": server.MatchExact, "prefix": server.MatchPrefix, "suffix": server.MatchSuffix, "substring": server.MatchSubstring, "regex": server.MatchRegex,
}

// rewrite reads one rule, on a line or in a block whose first line is the rule and whose others are about answers.
func (r *reader) rewrite(l *line) error {
	w := l.words[1:]
	rule := server.Rewrite{}
	if len(w) > 0 && (w[0] == "stop" || w[0] == "continue") {
		rule.Continue = w[0] == "continue"
		w = w[1:]
	}
	var answers [][]string
	for i, s := range l.block {
		switch {
		case s.words[0] == "answer":
			answers = append(answers, s.words)
		case i == 0 && len(w) == 0:
			w = s.words
		default:
			return s.errorf("rewrite: %q is neither the rule nor about answers", strings.Join(s.words, " "))
		}
	}
	for i := slices.Index(w, "answer"); i >= 0; i = slices.Index(w, "answer") {
		rest := w[i:]
		if next := slices.Index(rest[1:], "answer"); next >= 0 {
			answers, w = append(answers, rest[:next+1]), slices.Concat(w[:i], rest[next+1:])
			continue
		}
		answers, w = append(answers, rest), w[:i]
	}
	if ok, err := r.rule(l, w, &rule); err != nil || !ok {
		return err
	}
	for _, a := range answers {
		if err := r.answer(l, a, &rule); err != nil {
			return err
		}
	}
	r.c.Server.Rewrites = append(r.c.Server.Rewrites, rule)
	return nil
}

// rule reads what is replaced by what; ok is false when that is not there, which is told.
func (r *reader) rule(l *line, w []string, rule *server.Rewrite) (ok bool, err error) {
	takes := map[string]int{"name": 2, "type": 2, "ttl": 2, "rcode": 3} // arguments behind the kind of comparison
	fields := map[string]server.RewriteField{"name": server.RewriteName, "type": server.RewriteType, "ttl": server.RewriteTTL, "rcode": server.RewriteRcode}
	if len(w) == 0 || takes[w[0]] == 0 {
		r.warn(l, "rewrite %s is not supported and is left out", strings.Join(w[:min(1, len(w))], " "))
		return false, nil
	}
	rule.Field = fields[w[0]]
	args := w[1:]
	if rule.Field != server.RewriteType && len(args) > takes[w[0]] {
		if rule.Match.Kind, ok = matchKinds[args[0]]; !ok {
			r.warn(l, "rewrite %s %s is not supported and is left out", w[0], args[0])
			return false, nil
		}
		args = args[1:]
	}
	if len(args) != takes[w[0]] {
		return false, l.errorf("rewrite %s takes %d words, and how the name is compared: exact, prefix, suffix, substring or regex", w[0], takes[w[0]])
	}
	switch rule.Field {
	case server.RewriteType:
		rule.From, rule.To = args[0], args[1]
	case server.RewriteTTL:
		rule.Match.Text = args[0]
		if rule.TTL, ok = lifetimes(args[1]); !ok {
			return false, l.errorf("rewrite ttl takes seconds, or the least and the most of them as 5-30, not %q", args[1])
		}
	case server.RewriteRcode:
		rule.Match.Text, rule.From, rule.To = args[0], args[1], args[2]
	default:
		rule.Match.Text, rule.To = args[0], args[1]
	}
	return true, nil
}

// lifetimes reads "30", "5-30", "5-" or "-30".
func lifetimes(s string) (ttl [2]int, ok bool) {
	const most = 1<<31 - 1 // RFC 2181, 8
	from, to, span := strings.Cut(s, "-")
	if !span {
		to = from
	}
	ttl[1] = most
	for i, text := range []string{from, to} {
		if text == "" && span && s != "-" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > most {
			return ttl, false
		}
		ttl[i] = n
	}
	return ttl, ttl[0] <= ttl[1]
}

// answer reads what becomes of names in replies. The name that was asked for in the place of the client's becomes the
// client's again in any case.
func (r *reader) answer(l *line, w []string, rule *server.Rewrite) error {
	back := server.AnswerRewrite{Match: server.Match{Kind: rule.Match.Kind, Text: rule.To}, To: rule.Match.Text}
	switch {
	case len(w) == 2 && w[1] == "auto" && rule.Field == server.RewriteName && rule.Match.Kind != server.MatchRegex:
		value := back
		value.Value = true
		rule.Answers = append(rule.Answers, back, value)
	case len(w) == 4 && (w[1] == "name" || w[1] == "value"):
		rule.Answers = append(rule.Answers, server.AnswerRewrite{Value: w[1] == "value", Match: server.Match{Kind: server.MatchRegex, Text: w[2]}, To: w[3]})
	case len(w) == 3: // the short form of name
		rule.Answers = append(rule.Answers, server.AnswerRewrite{Match: server.Match{Kind: server.MatchRegex, Text: w[1]}, To: w[2]})
	default:
		return l.errorf("rewrite: %q: answer takes auto, but not with regex, or name or value with an expression and what replaces it", strings.Join(w, " "))
	}
	return nil
}
