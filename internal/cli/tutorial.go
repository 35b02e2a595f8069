package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"minato/internal/tutorial"
	"minato/internal/tutorial/guide"
	"minato/internal/web"
)

// tutorialFlags are the flags of `minato tutorial` as written.
type tutorialFlags struct {
	lang       string
	yes, clean bool
}

func tutorialCommand(o *options) *cobra.Command {
	f := &tutorialFlags{}
	c := &cobra.Command{
		Use:   "tutorial [LESSON]",
		Short: "Learn Services on this cluster, step by step, in English or Japanese",
		Long: "Without LESSON it lists the lessons, by number and name. A lesson shows a step and its commands, runs them at Enter\n" +
			"or waits until you have typed them in another terminal, and goes on when the cluster is as it should be; where it is\n" +
			"not, it says in what and why. Leave it with q or Ctrl-C at any time: the next call goes on where you were.\n" +
			"Every lesson works in a namespace of its own, which --clean removes.",
		Example: "  minato tutorial\n  minato tutorial kinds\n  minato tutorial 3 --lang ja\n  minato tutorial kinds --clean",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			lang, err := f.language()
			if err != nil {
				return &exitError{exitUsage, err}
			}
			lessons, err := tutorial.Lessons(lang)
			if err != nil {
				return err
			}
			t := &tutorialRun{options: o, lang: lang, lessons: lessons, yes: f.yes, in: c.InOrStdin(), out: c.OutOrStdout()}
			switch {
			case len(args) == 0 && f.clean:
				return t.clean(c.Context(), lessons)
			case len(args) == 0 && f.yes:
				return &exitError{exitUsage, errors.New("name a lesson to run with --yes: `minato tutorial` lists them")}
			case len(args) == 0:
				return t.list(c.Context())
			}
			lesson, err := find(lessons, args[0])
			if err != nil {
				return &exitError{exitUsage, err}
			}
			if f.clean {
				return t.clean(c.Context(), []tutorial.Lesson{lesson})
			}
			return t.walk(c.Context(), lesson)
		},
	}
	c.Flags().StringVar(&f.lang, "lang", "", "en or ja (default: by LC_ALL, LC_MESSAGES or LANG)")
	c.Flags().BoolVarP(&f.yes, "yes", "y", false, "run every command without asking, and end with 1 at the first step that is not as expected")
	c.Flags().BoolVar(&f.clean, "clean", false, "remove what the lesson made, or all lessons")
	_ = c.RegisterFlagCompletionFunc("lang", cobra.FixedCompletions([]string{"en", "ja"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (f *tutorialFlags) language() (tutorial.Lang, error) {
	if f.lang != "" {
		return tutorial.ParseLang(f.lang)
	}
	return tutorial.LocaleLang(cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_MESSAGES"), os.Getenv("LANG"))), nil
}

// find is the lesson of a name or number.
func find(lessons []tutorial.Lesson, word string) (tutorial.Lesson, error) {
	names := make([]string, len(lessons))
	for i, l := range lessons {
		if word == l.Name || word == strconv.Itoa(i+1) {
			return l, nil
		}
		names[i] = l.Name
	}
	return tutorial.Lesson{}, fmt.Errorf("take one of %s, or its number: there is no lesson %s", strings.Join(names, ", "), word)
}

// tutorialRun is one call of the verb.
type tutorialRun struct {
	*options
	lang    tutorial.Lang
	lessons []tutorial.Lesson
	yes     bool
	in      io.Reader
	out     io.Writer
}

func (t *tutorialRun) say(en, ja string, args ...any) {
	fmt.Fprintln(t.out, t.lang.Say(en, ja, args...))
}

// list prints the lessons, and how far each was walked where an instance runs.
func (t *tutorialRun) list(ctx context.Context) error {
	paint := painter(t.out)
	t.say("Lessons about Services, done on a running cluster, each in a namespace of its own.\n",
		"動いているクラスタの上で Service を学ぶレッスンです。それぞれ専用の Namespace を使います。\n")
	host, notRunning := t.host(ctx)
	for i, l := range t.lessons {
		state := ""
		if notRunning == nil {
			state = t.progress(ctx, host, l)
		}
		fmt.Fprintf(t.out, "  %d  %-9s %s\n", i+1, l.Name, paint(bold, l.Title))
		fmt.Fprintf(t.out, "     %-9s %s\n", "", l.Teaches)
		fmt.Fprintf(t.out, "     %-9s %s%s\n\n", "", t.lang.Say("%d steps, about %d minutes", "%d ステップ、およそ %d 分", len(l.Steps), l.Minutes), state)
	}
	t.say("Begin or go on with `minato tutorial LESSON%s`, by name or number.", "`minato tutorial LESSON%s` で始めます(名前か番号)。途中からも続けられます。", t.nameFlag())
	switch {
	case notRunning == nil:
	case !errors.Is(notRunning, web.ErrNotRunning):
		fmt.Fprintln(t.out, notRunning)
	default:
		t.say("No instance runs now: `sudo minato up --detach%s` starts one.", "いまは動いていません。`sudo minato up --detach%s` で起動してください。", t.nameFlag())
	}
	return nil
}

func (t *tutorialRun) progress(ctx context.Context, host *tutorialHost, l tutorial.Lesson) string {
	begun, step, err := guide.Begun(ctx, host, l.Name)
	at := slices.IndexFunc(l.Steps, func(s tutorial.Step) bool { return s.ID == step }) + 1
	switch {
	case err != nil || !begun:
		return ""
	case at == len(l.Steps):
		return t.lang.Say("; done", "、完了")
	}
	return t.lang.Say("; %d done", "、%d まで完了", at)
}

// nodes are those of the running instance.
func (t *tutorialRun) nodes(ctx context.Context) ([]web.Node, []tutorial.Node, error) {
	all, err := t.options.nodes(ctx)
	if err != nil {
		return nil, nil, err
	}
	var nodes []tutorial.Node
	for _, n := range all {
		nodes = append(nodes, tutorial.Node{Name: n.Name, Addr: n.Addr})
	}
	return all, nodes, nil
}

// fits refuses where the lesson cannot be walked through on these nodes and this machine.
func (t *tutorialRun) fits(l tutorial.Lesson, nodes []web.Node) error {
	for _, n := range nodes {
		if !n.Ready || n.Condition != "" {
			return errors.New(t.lang.Say("start it first (minato node start %[1]s%[2]s), or wait until it is ready: node %[1]s is not ready",
				"先にノード %[1]s を戻すか(minato node start %[1]s%[2]s)、Ready になるまで待ってください", n.Name, t.nameFlag()))
		}
		if a, err := netip.ParseAddr(n.Addr); err != nil || !a.Is4() {
			return errors.New(t.lang.Say("make an instance with `--ip-family ipv4` or `dual` for the lessons: node %s has no IPv4 address",
				"レッスンには `--ip-family ipv4` か `dual` で作ったクラスタが必要です(ノード %s に IPv4 アドレスがありません)", n.Name))
		}
	}
	if len(nodes) < l.Nodes {
		const lab = "sudo minato up --detach --name lab --node-cidr 172.31.0.0/24 --pod-cidr 10.245.0.0/16 --service-cidr 10.112.0.0/16"
		return errors.New(t.lang.Say("make an instance of more nodes beside this one, and do the lesson there (%s needs %d nodes, this one has %d):\n  %s\n  minato tutorial %s --name lab",
			"ノードの多いクラスタを別に作り、そこで試してください(%s には %d ノード必要ですが、ここには %d しかありません):\n  %s\n  minato tutorial %s --name lab",
			l.Name, l.Nodes, len(nodes), lab, l.Name))
	}
	for _, program := range l.Programs {
		if _, err := exec.LookPath(program); err != nil {
			return errors.New(t.lang.Say("install %[1]s first (sudo apt-get install %[1]s): the lesson uses it on this machine",
				"先に %[1]s を入れてください(sudo apt-get install %[1]s)。このレッスンで使います", program))
		}
	}
	return nil
}

// walk goes through a lesson with whoever is at the terminal.
func (t *tutorialRun) walk(ctx context.Context, l tutorial.Lesson) error {
	keys, _ := t.in.(*os.File)
	if !t.yes && !isTerminal(t.in) {
		return &exitError{exitUsage, errors.New(t.lang.Say("run it in a terminal, or with --yes, which asks nothing: there is nobody to type here",
			"端末で実行するか、何も尋ねない --yes を付けてください"))}
	}
	all, nodes, err := t.nodes(ctx)
	if err != nil {
		return err
	}
	if err := t.fits(l, all); err != nil {
		return err
	}
	host, err := t.host(ctx)
	if err != nil {
		return err
	}
	host.keys = keys
	if err := host.prepare(l, tutorial.NodeValues(nodes)); err != nil {
		return err
	}
	t.head(l, host)
	paint := painter(t.out)
	g := &guide.Guide{Lesson: l, Lang: t.lang, Nodes: nodes, Host: host, Out: t.out, Live: isTerminal(t.out), Ask: !t.yes,
		Paint: func(s guide.Style, text string) string {
			if c := map[guide.Style]colour{guide.Title: bold, guide.Command: cyan, guide.Good: green, guide.Bad: red, guide.Dim: dim}[s]; c != "" {
				return paint(c, text)
			}
			return text
		}}
	return t.ended(l, g.Walk(ctx))
}

// head says what a lesson is, and how to follow it from another terminal.
func (t *tutorialRun) head(l tutorial.Lesson, host *tutorialHost) {
	t.say("%s\n%s\n", "%s\n%s\n", painter(t.out)(bold, l.Title), t.lang.Say("%d steps, about %d minutes, in namespace %s; images: %s",
		"%d ステップ、およそ %d 分。Namespace は %s、イメージは %s", len(l.Steps), l.Minutes, l.Name, strings.Join(l.Images, ", ")))
	if !t.yes {
		t.say("To type the commands yourself, open another terminal and begin there with\n", "コマンドを自分で打つときは、別の端末を開き、最初に次を実行してください。\n")
		fmt.Fprintf(t.out, "    source %s\n", host.envFile())
	}
}

// ended says how the lesson ended, and what can be done next.
func (t *tutorialRun) ended(l tutorial.Lesson, err error) error {
	again := l.Name + t.nameFlag()
	switch {
	case errors.Is(err, guide.ErrLeft), errors.Is(err, context.Canceled):
		t.say("\nLeft; everything stays as it is. To go on here: `minato tutorial %[1]s`;\nwith --clean it removes what was made.",
			"\n中断しました。作ったものはそのままです。`minato tutorial %[1]s` で続きから、\n--clean を付けると片付けます。", again)
		return nil
	case errors.Is(err, guide.ErrNotAsExpected):
		return &exitError{exitFailed, errors.New(t.lang.Say("mend it and go on with `minato tutorial %s`: the cluster is not as the step expects",
			"直してから `minato tutorial %s` で続けてください", again))}
	case err != nil:
		return err
	}
	t.say("\nThat was the last step. `minato tutorial %s --clean` removes\nwhat the lesson made, and lets you begin anew.",
		"\nこれで最後のステップまで終わりました。`minato tutorial %s --clean` で片付けると、\nもう一度はじめから試せます。", again)
	if i := slices.IndexFunc(t.lessons, func(x tutorial.Lesson) bool { return x.Name == l.Name }); i+1 < len(t.lessons) {
		t.say("The next one: `minato tutorial %s%s`, %s.", "次のレッスンは `minato tutorial %s%s`(%s)です。", t.lessons[i+1].Name, t.nameFlag(), t.lessons[i+1].Title)
	}
	return nil
}

// clean removes what lessons made.
func (t *tutorialRun) clean(ctx context.Context, lessons []tutorial.Lesson) error {
	_, nodes, err := t.nodes(ctx)
	if err != nil {
		return err
	}
	host, err := t.host(ctx)
	if err != nil {
		return err
	}
	removed := 0
	for _, l := range lessons {
		begun, _, err := guide.Begun(ctx, host, l.Name)
		if err == nil && begun {
			removed++
			t.say("removing namespace %s and all in it ...", "Namespace %s とその中身を消しています ...", l.Name)
			err = guide.Clean(ctx, host, l, nodes)
		}
		if err != nil && len(lessons) == 1 {
			return err
		}
		if err := host.remove(l); err != nil {
			return err
		}
	}
	if removed == 0 {
		t.say("There is nothing to remove.", "片付けるものはありません。")
	}
	return nil
}
