package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"minato/internal/web"
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
		o.listImagesCommand(),
	)
	return c
}

func (o *options) listImagesCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "list", Short: "List loaded images", Example: "  minato image list\n  minato image list -o json", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			all, err := client.Images(c.Context())
			if err != nil {
				return o.hint(err)
			}
			if output == web.JSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(all)
			}
			for _, name := range all {
				fmt.Fprintln(c.OutOrStdout(), name)
			}
			return nil
		},
	}
	formatFlag(c, &output, web.Text, web.JSON)
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
