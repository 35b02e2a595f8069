package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func imageCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "image", Short: "Load images from archives, or list those that were loaded"}
	c.AddCommand(
		&cobra.Command{
			Use:     "load FILE.tar...",
			Short:   "Load images (docker save, or an OCI layout); - reads standard input",
			Example: "  docker save nginx | minato image load -",
			Args:    cobra.MinimumNArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				for _, file := range args {
					if err := o.load(c, file); err != nil {
						return err
					}
				}
				return nil
			},
		},
		&cobra.Command{
			Use: "list", Short: "List loaded images", Example: "  minato image list", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				client, err := o.client()
				if err != nil {
					return err
				}
				all, err := client.Images(c.Context())
				for _, name := range all {
					fmt.Fprintln(c.OutOrStdout(), name)
				}
				return o.hint(err)
			},
		},
	)
	return c
}

func (o *options) load(c *cobra.Command, file string) error {
	client, err := o.client()
	if err != nil {
		return err
	}
	var r io.Reader = c.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("name an image archive: %w", err)
		}
		defer f.Close()
		r = f
	}
	names, err := client.Load(c.Context(), r)
	if err != nil {
		return fmt.Errorf("load %s: %w", file, o.hint(err))
	}
	for _, n := range names {
		fmt.Fprintln(c.OutOrStdout(), "loaded", n)
	}
	return nil
}
