package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"minato/internal/run"
)

func downCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop the cluster; its state stays for the next up", Example: "  sudo minato down",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			inst, err := o.instance()
			if err != nil {
				return err
			}
			if err := needRoot("down" + o.nameFlag()); err != nil {
				return err
			}
			return run.Down(c.Context(), inst, c.ErrOrStderr())
		},
	}
}

func deleteCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "delete",
		Short: "Stop the cluster and remove every trace of it", Example: "  sudo minato delete --name lab",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			inst, err := o.instance()
			if err != nil {
				return err
			}
			if err := needRoot("delete" + o.nameFlag()); err != nil {
				return err
			}
			_, exists, err := inst.Load()
			if err := run.Delete(c.Context(), inst, c.ErrOrStderr()); err != nil {
				return err
			}
			if err == nil && !exists {
				fmt.Fprintf(c.ErrOrStderr(), "there was no instance %s (state in %s)\n", inst.Name, inst.StateDir)
				return nil
			}
			fmt.Fprintf(c.ErrOrStderr(), "instance %s is gone\n", inst.Name)
			return nil
		},
	}
}
