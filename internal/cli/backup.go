package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"minato/internal/instance"
	"minato/internal/run"
	"minato/internal/web"
)

func backupCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "Write all that the cluster knows into a file, while it runs or when it is down",
		Long: "The file has every object of the Kubernetes API as it was at one moment, the certificates, and the settings of `minato up`.\n" +
			"It has no images and no volumes of pods. It has the keys of the cluster: keep it to yourself.",
		Example: "  minato backup before.minato",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			inst, err := o.instance()
			if err != nil {
				return err
			}
			n, err := writeBackup(c.Context(), inst, args[0])
			if err != nil {
				return o.hint(err)
			}
			fmt.Fprintf(c.OutOrStdout(), "%d objects of instance %s are in %s\n", n, inst.Name, args[0])
			return nil
		},
	}
}

// writeBackup writes the file whole or not at all, and reads it again before it gets its name.
func writeBackup(ctx context.Context, inst instance.Instance, file string) (objects int, err error) {
	f, err := os.OpenFile(file+".new", os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, fmt.Errorf("choose a file that can be written: %w", err)
	}
	defer os.Remove(file + ".new") // gone by then, if all went well
	defer f.Close()
	_, err = web.NewClient(inst.ControlSocket()).Get(ctx, "/backup", nil, f)
	if errors.Is(err, web.ErrNotRunning) {
		err = run.WriteBackup(ctx, inst, f)
	}
	if err != nil {
		return 0, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, fmt.Errorf("read the backup again: %w", err)
	}
	_, all, err := run.ReadBackup(f)
	if err != nil {
		return 0, fmt.Errorf("read the backup again: %w", err)
	}
	for _, err := range all {
		if err != nil {
			return 0, fmt.Errorf("read the backup again: %w", err)
		}
		objects++
	}
	return objects, errors.Join(f.Sync(), os.Rename(file+".new", file))
}

func restoreCommand(o *options) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "restore FILE", Short: "Make an instance from a backup; start it with up afterwards",
		Long: "With another --name the backup becomes another instance, of the same addresses and certificates: the two cannot run at\n" +
			"the same time on one machine. Pods start anew at the next `minato up`; their volumes are empty.",
		Example: "  sudo minato restore before.minato\n  sudo minato restore before.minato --name copy",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			inst, err := o.instance()
			if err != nil {
				return err
			}
			if err := needRoot("restore FILE" + o.nameFlag()); err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("name a file that `minato backup` wrote: %w", err)
			}
			defer f.Close()
			head, err := run.Restore(c.Context(), inst, f, force)
			if errors.Is(err, run.ErrNoBackup) {
				return fmt.Errorf("name a file that `minato backup` wrote: %s: %w", args[0], err)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "instance %s is as %s was at %s; start it: sudo minato up%s\n",
				inst.Name, head.Name, head.Made.Format("2006-01-02 15:04:05 MST"), o.nameFlag())
			return nil
		},
	}
	c.Flags().BoolVar(&force, "force", false, "replace what the instance has")
	return c
}
