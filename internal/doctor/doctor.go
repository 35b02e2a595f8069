//go:build linux

// Package doctor finds out whether this machine can run an instance, before the instance finds out the hard way.
//
// A check looks at one thing, says what it found, and what to do about it in one line. What the kernel can do is tried
// in a network namespace of its own that is gone afterwards; nothing of the host is changed.
//
// It repairs nothing, and looks at no running instance: that is what `minato status` is for.
package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Level is how bad a finding is.
type Level string

// OK is for what is as it should be, Warn for what works less well or may fail later, Fail for what stops an instance.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Finding is the result of one check.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Found string `json:"found"`
	Do    string `json:"do,omitempty"` // one line; empty when OK
}

// Want is the instance that shall run.
type Want struct {
	StateDir string // need not exist
	APIPort  uint16
	Running  bool // it runs: its own ports and files are no obstacle
}

// check looks at one thing. Its error, if any, becomes a warning that it could not be looked at.
type check struct {
	name  string
	quick bool // little enough work for every start
	look  func(context.Context, System, Want) (Finding, error)
}

var checks = []check{
	{"kernel", true, kernel},
	{"nf_tables", false, features},
	{"links", false, links},
	{"containerd", true, containerd},
	{"cgroups", true, cgroups},
	{"memory", true, memory},
	{"disk", true, disk},
	{"limits", true, limits},
	{"clock", true, clock},
	{"forwarding", true, forwarding},
	{"ranges", false, ranges},
	{"firewall", false, firewalls},
	{"port 53", false, portDNS},
	{"API port", false, portAPI},
}

// Run makes all checks, in the order in which a person would.
func Run(ctx context.Context, sys System, want Want) []Finding {
	return run(ctx, sys, want, func(check) bool { return true })
}

// Quick makes the checks that take no time, for every start. Of what they find only Fail matters there.
func Quick(ctx context.Context, sys System, want Want) []Finding {
	return run(ctx, sys, want, func(c check) bool { return c.quick })
}

func run(ctx context.Context, sys System, want Want, which func(check) bool) []Finding {
	var all []Finding
	for _, c := range checks {
		if !which(c) {
			continue
		}
		f, err := c.look(ctx, sys, want)
		if err != nil {
			f = Finding{Level: Warn, Found: "cannot be looked at: " + err.Error(), Do: "run it as root: sudo minato doctor"}
		}
		f.Check = c.name
		all = append(all, f)
	}
	return all
}

// Worst is the worst level among findings.
func Worst(all []Finding) Level {
	worst := OK
	for _, f := range all {
		if f.Level == Fail || f.Level == Warn && worst == OK {
			worst = f.Level
		}
	}
	return worst
}

// Err is what stops an instance, nil if nothing does. Its first line says what to do.
func Err(all []Finding) error {
	var lines []string
	for _, f := range all {
		if f.Level == Fail {
			lines = append(lines, f.Do+" ("+f.Check+": "+f.Found+")")
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(lines, "\n"))
}

// Print writes findings for people; paint colours a level.
func Print(w io.Writer, all []Finding, paint func(Level) string) error {
	const levelWidth, checkWidth = 6, 12
	var b strings.Builder
	for _, f := range all {
		fmt.Fprintf(&b, "%s%*s%-*s%s\n", paint(f.Level), levelWidth-len(f.Level), "", checkWidth, f.Check, f.Found)
		if f.Do != "" {
			fmt.Fprintf(&b, "%*s=> %s\n", levelWidth+checkWidth, "", f.Do)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// PrintJSON writes findings for programs.
func PrintJSON(w io.Writer, all []Finding) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(all)
}

func ok(format string, a ...any) (Finding, error) {
	return Finding{Level: OK, Found: fmt.Sprintf(format, a...)}, nil
}

func warn(do, format string, a ...any) (Finding, error) {
	return Finding{Level: Warn, Found: fmt.Sprintf(format, a...), Do: do}, nil
}

func fail(do, format string, a ...any) (Finding, error) {
	return Finding{Level: Fail, Found: fmt.Sprintf(format, a...), Do: do}, nil
}
