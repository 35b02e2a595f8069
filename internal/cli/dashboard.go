package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

func dashboardCommand(o *options) *cobra.Command {
	var listen string
	var urlOnly bool
	c := &cobra.Command{
		Use:   "dashboard",
		Short: "Show nodes, Services and endpoints as a live picture in the browser",
		Long: "Serves a page at a local port until it is interrupted, and opens it in a browser, where there is one. The page shows\n" +
			"what is wanted and what every node has applied, and explains a connection between two things that are clicked.\n" +
			"The address has a secret in it: whoever has it may look, and change nothing.",
		Example: "  minato dashboard\n  minato dashboard --url --listen 127.0.0.1:8080",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := o.client()
			if err != nil {
				return err
			}
			if _, err := client.Nodes(c.Context()); err != nil { // whether anybody answers
				return o.hint(err)
			}
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return fmt.Errorf("choose another --listen: %w", err)
			}
			secret := "/" + rand.Text()
			url := "http://" + l.Addr().String() + secret + "/"
			fmt.Fprintf(c.OutOrStdout(), "%s\n", url)
			if !urlOnly {
				open(c, url)
			}
			return servePage(c.Context(), l, http.StripPrefix(secret, client.Page()))
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "address and port of the page; port 0 is a free one")
	c.Flags().BoolVar(&urlOnly, "url", false, "only print the address")
	return c
}

// servePage serves until ctx ends. Pages that are open do not hold it up.
func servePage(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the page: %w", err)
	}
	return nil
}
