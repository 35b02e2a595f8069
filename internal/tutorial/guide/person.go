package guide

import (
	"context"
	"fmt"
	"time"

	"minato/internal/tutorial"
)

// done is how a step's commands came to be run.
type done int

const (
	ran       done = iota // here
	elsewhere             // in another terminal: the cluster is as expected
	skipped
	looked // nothing was run: look again
)

// commands has a step's commands run, here or by the person.
func (g *Guide) commands(ctx context.Context, s tutorial.Step) (done, error) {
	if !g.Ask {
		return ran, g.run(ctx, s)
	}
	f, err := g.look(ctx, s)
	if err != nil {
		return ran, err
	}
	// Where nothing will change, whether it was typed elsewhere cannot be seen.
	watch := f != nil
	if watch {
		g.prompt(g.Lang.Say("Enter: run it here   s: skip   q: leave   (or type it in another terminal)",
			"Enter: ここで実行   s: 飛ばす   q: 中断   (別の端末で打ってもかまいません)"))
	} else {
		g.prompt(g.Lang.Say("Enter: run it here   n: next, I have seen it   s: skip   q: leave",
			"Enter: ここで実行   n: 確かめたので次へ   s: 飛ばす   q: 中断"))
	}
	for {
		key, ok, err := g.Host.Key(ctx, pause)
		switch {
		case err != nil:
			return ran, err
		case ok && key == "":
			return ran, g.run(ctx, s)
		case ok && key == "n" && !watch:
			return elsewhere, nil
		case ok && key == "s":
			return skipped, nil
		case ok && (key == "q" || key == "quit" || key == "exit"):
			return ran, ErrLeft
		case ok:
			g.prompt(g.Lang.Say("Enter, s or q? Commands are typed in another terminal.", "Enter、s、q のどれかを。コマンドは別の端末で打ちます。"))
		case watch:
			f, err := g.look(ctx, s)
			if err != nil {
				return ran, err
			}
			if f == nil {
				fmt.Fprintln(g.Out)
				return elsewhere, nil
			}
		}
	}
}

// askAfter asks what to do about something that is not as expected.
func (g *Guide) askAfter(ctx context.Context) (done, error) {
	g.prompt(g.Lang.Say("Enter: look again   r: run the commands again   s: skip   q: leave",
		"Enter: もう一度確認   r: コマンドをもう一度実行   s: 飛ばす   q: 中断"))
	for {
		key, ok, err := g.Host.Key(ctx, time.Minute)
		switch {
		case err != nil:
			return looked, err
		case !ok:
		case key == "":
			return looked, nil
		case key == "r":
			return ran, nil
		case key == "s":
			return skipped, nil
		default:
			return looked, ErrLeft
		}
	}
}

func (g *Guide) prompt(text string) { fmt.Fprint(g.Out, g.Paint(Dim, "["+text+"] ")) }
