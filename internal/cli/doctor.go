package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"minato/internal/doctor"
	"minato/internal/instance"
	"minato/internal/run"
)

func doctorCommand(o *options) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "doctor", Short: "Say whether this machine can run a cluster, and what to do if not", Args: cobra.NoArgs,
		Long: "Looks at the kernel, containerd, memory, address ranges, firewalls and ports, and changes nothing. `minato up` does the\n" +
			"same before the first start. Exit 0: it can run, 1: something stops it.",
		Example: "  sudo minato doctor\n  sudo minato doctor -o json",
	}
	formatFlag(c, &output, "text", "json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		inst, err := o.instance()
		if err != nil {
			return err
		}
		cfg, _, err := inst.Load()
		if err != nil {
			return o.hint(err)
		}
		if cfg, err = cfg.Complete(instance.DefaultNodes); err != nil {
			return err
		}
		host, want := examine(inst, cfg)
		want.Running = running(inst)
		found := doctor.Run(c.Context(), host, want)
		if err := printFindings(c.OutOrStdout(), found, output); err != nil {
			return err
		}
		if doctor.Worst(found) == doctor.Fail {
			return &exitError{code: exitFailed}
		}
		return nil
	}
	return c
}

func printFindings(w io.Writer, found []doctor.Finding, output string) error {
	if output == "json" {
		return doctor.PrintJSON(w, found)
	}
	paint := painter(w)
	colours := map[doctor.Level]colour{doctor.OK: green, doctor.Warn: yellow, doctor.Fail: red}
	return doctor.Print(w, found, func(l doctor.Level) string { return paint(colours[l], string(l)) })
}

// examine says which machine doctor looks at, and for what.
func examine(inst instance.Instance, cfg instance.Config) (doctor.Host, doctor.Want) {
	return doctor.Host{Network: run.NetworkConfig(inst, cfg, slog.New(slog.DiscardHandler))},
		doctor.Want{StateDir: inst.StateDir, APIPort: cfg.APIPort}
}

// checkMachine ends a start that cannot succeed: at the first one with all checks, later with those that take no time.
func checkMachine(ctx context.Context, inst instance.Instance, cfg instance.Config) error {
	host, want := examine(inst, cfg)
	if _, exists, err := inst.Load(); err == nil && exists {
		return doctor.Err(doctor.Quick(ctx, host, want))
	}
	return doctor.Err(doctor.Run(ctx, host, want))
}

// running reports whether a process has the instance.
func running(inst instance.Instance) bool {
	unlock, err := inst.TryLock()
	if err == nil {
		unlock()
	}
	return errors.Is(err, instance.ErrRunning)
}
