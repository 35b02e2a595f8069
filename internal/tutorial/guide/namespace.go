package guide

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"minato/internal/tutorial"
)

// What marks the namespace of a lesson, and keeps the step that was ended last.
const (
	label    = "minato-tutorial"
	progress = "minato-tutorial/done"
)

// Begun reports whether the lesson's namespace is there, and which step was ended last (empty: none).
func Begun(ctx context.Context, host Host, lesson string) (begun bool, step string, err error) {
	a, err := kubectl(ctx, host, "get", "namespace", lesson, "--ignore-not-found",
		"-o", `jsonpath={.metadata.labels.`+label+`} {.metadata.annotations.`+progress+`} {.status.phase}`)
	if err != nil {
		return false, "", err
	}
	if strings.TrimSpace(a) == "" {
		return false, "", nil
	}
	words := strings.Split(a, " ")
	switch {
	case words[0] != lesson:
		return false, "", fmt.Errorf("rename or delete namespace %s, which the lesson needs: it is there already, and is not the tutorial's", lesson)
	case words[2] == "Terminating":
		return false, "", fmt.Errorf("wait some seconds: namespace %s is being deleted", lesson)
	}
	return true, words[1], nil
}

func kubectl(ctx context.Context, host Host, args ...string) (string, error) {
	a, err := host.Ask(ctx, tutorial.Question{Argv: append([]string{"kubectl"}, args...)})
	if err == nil && a.Code != 0 {
		err = fmt.Errorf("kubectl %s: %s", args[0], strings.TrimSpace(a.Err))
	}
	return a.Out, err
}

func (g *Guide) openNamespace(ctx context.Context) error {
	begun, _, err := Begun(ctx, g.Host, g.Lesson.Name)
	if err != nil || begun {
		return err
	}
	if _, err := kubectl(ctx, g.Host, "create", "namespace", g.Lesson.Name); err != nil {
		return err
	}
	_, err = kubectl(ctx, g.Host, "label", "namespace", g.Lesson.Name, label+"="+g.Lesson.Name)
	return err
}

// save keeps that a step was ended.
func (g *Guide) save(ctx context.Context, s tutorial.Step) error {
	_, err := kubectl(ctx, g.Host, "annotate", "namespace", g.Lesson.Name, "--overwrite", progress+"="+s.ID)
	return err
}

// resume finds the step to go on with, and says so.
func (g *Guide) resume(ctx context.Context) (int, error) {
	_, step, err := Begun(ctx, g.Host, g.Lesson.Name)
	if err != nil {
		return 0, err
	}
	done := slices.IndexFunc(g.Lesson.Steps, func(s tutorial.Step) bool { return s.ID == step })
	if done < 0 {
		return 0, nil
	}
	at := tutorial.Resume(g.Lesson.Steps, done, func(s tutorial.Step) bool {
		f, lookErr := g.look(ctx, s)
		err = lookErr
		return err == nil && f == nil
	})
	g.forget()
	switch {
	case err != nil:
		return 0, err
	case at > done && at < len(g.Lesson.Steps):
		g.say("\nGoing on with step %d; %d are done.", "\nステップ %[1]d から続けます(%[2]d まで終わっています)。", at+1, at)
	case at <= done:
		g.say("\nStep %d was reached, but what it made has changed: going on with step %d.",
			"\nステップ %d まで進んでいましたが、その後に状態が変わっています。ステップ %d から続けます。", done+1, at+1)
	}
	return at, nil
}

// Clean removes what the lesson made, and says what it does.
func Clean(ctx context.Context, host Host, lesson tutorial.Lesson, nodes []tutorial.Node) error {
	begun, _, err := Begun(ctx, host, lesson.Name)
	if err != nil || !begun {
		return err
	}
	for _, line := range lesson.Clean {
		if _, err := host.Ask(ctx, tutorial.Question{Line: tutorial.Fill(line, tutorial.NodeValues(nodes))}); err != nil {
			return err
		}
	}
	_, err = kubectl(ctx, host, "delete", "namespace", lesson.Name, "--wait=true")
	return err
}
