// Command minato-cni is the CNI plugin of minato's pods. See package internal/cluster/cni/plugin.
package main

import (
	"os"

	"minato/internal/cluster/cni/plugin"
)

func main() { os.Exit(plugin.Main(os.Args[0], os.Getenv, os.Stdin, os.Stdout)) }
