package cli

import (
	"fmt"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"
)

// browser opens a URL as the user's desktop does (freedesktop.org, xdg-utils).
const browser = "xdg-open"

func serviceCommand(o *options) *cobra.Command {
	var namespace string
	var urlOnly bool
	c := &cobra.Command{
		Use:   "service NAME",
		Short: "Print where a Service can be reached from this machine, and open it in a browser",
		Long: "Prints one URL for each port: at the load balancer or external address, where the Service has one, else at a\n" +
			"node's address and the NodePort. Without --url the first one is opened in a browser, where there is one.",
		Example: "  minato service web --url\n  curl $(minato service web --url)",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			urls, err := client.Service(c.Context(), namespace, args[0])
			if err != nil {
				return o.hint(err)
			}
			for _, u := range urls {
				fmt.Fprintln(c.OutOrStdout(), u)
			}
			if !urlOnly {
				open(c, urls[0])
			}
			return nil
		},
	}
	c.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace of the Service")
	c.Flags().BoolVar(&urlOnly, "url", false, "only print")
	return c
}

// open shows a URL. A machine without a browser is no error: the URL is printed already.
func open(c *cobra.Command, url string) {
	program, err := exec.LookPath(browser)
	if err == nil && strings.HasPrefix(url, "http") {
		cmd := exec.CommandContext(c.Context(), program, url)
		cmd.Stdin, cmd.Stdout = c.InOrStdin(), c.OutOrStdout() // on stderr it lists the browsers that it has not found
		if cmd.Run() == nil {
			return
		}
	}
	fmt.Fprintf(c.ErrOrStderr(), "there is no browser for it on this machine (%s): open it where there is one\n", browser)
}
