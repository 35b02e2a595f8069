// Command minato is the Kubernetes Service layer of one machine. See package internal/cli for its verbs.
package main

import (
	"os"

	"minato/internal/cli"
	"minato/internal/cluster/cni/plugin"
)

func main() {
	if plugin.Is(os.Args[0]) { // started by containerd, where no separate plugin was built in
		os.Exit(plugin.Main(os.Args[0], os.Getenv, os.Stdin, os.Stdout))
	}
	os.Exit(cli.Main(os.Args[0], os.Args[1:]))
}
