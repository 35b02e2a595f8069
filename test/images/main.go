// Command images makes the container images of the walkthroughs as docker-archive files, for `minato image load`.
//
//	go run ./test/images [-out DIR] [NAME...]
//
// Packages come from the Debian archive that this machine's apt is set up for, and are kept in a cache folder. It needs no
// root and no registry, and it loads nothing.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"minato/test/images/recipe"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	dir := flags.String("out", "", "folder to copy the images to (default: none, they stay in the cache folder)")
	cache := flags.String("cache", "", "folder for downloads and finished images (default: minato/images in the user's cache folder)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *cache == "" {
		var err error
		if *cache, err = recipe.Cache(); err != nil {
			return err
		}
	}
	names := flags.Args()
	if len(names) == 0 {
		names = recipe.Names()
	}
	made, err := recipe.Tars(ctx, *cache, names...)
	if err != nil {
		return err
	}
	for _, name := range names {
		file := made[name]
		if *dir != "" {
			if file, err = copyTo(*dir, name, file); err != nil {
				return err
			}
		}
		fmt.Fprintln(out, name, file)
	}
	return nil
}

// copyTo gives the image's file a name that says what it is.
func copyTo(dir, name, file string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read image: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make folder for images: %w", err)
	}
	to := filepath.Join(dir, strings.NewReplacer("/", "_", ":", "_").Replace(name)+".tar")
	if err := os.WriteFile(to, content, 0o644); err != nil {
		return "", fmt.Errorf("write image: %w", err)
	}
	return to, nil
}
