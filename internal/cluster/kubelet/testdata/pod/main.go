// Command pod is all that the pods of the tests run: a list of commands, separated by ";".
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	var command []string
	for _, arg := range append(os.Args[1:], ";") {
		if arg != ";" {
			command = append(command, arg)
			continue
		}
		if len(command) > 0 {
			run(command[0], command[1:])
		}
		command = nil
	}
}

func run(name string, args []string) {
	switch name {
	case "sleep": // until SIGTERM
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		<-stop
		fmt.Println("terminated")
	case "stubborn": // whatever comes
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ignoring")
		time.Sleep(time.Hour)
	case "wait":
		d, err := time.ParseDuration(args[0])
		check(err)
		time.Sleep(d)
	case "echo":
		fmt.Println(strings.Join(args, " "))
	case "complain":
		fmt.Fprintln(os.Stderr, strings.Join(args, " "))
	case "env":
		vars := os.Environ()
		sort.Strings(vars)
		fmt.Println(strings.Join(vars, "\n"))
	case "cat":
		for _, file := range args {
			data, err := os.ReadFile(file)
			check(err)
			os.Stdout.Write(data)
		}
	case "write":
		check(os.WriteFile(args[0], []byte(args[1]), 0o644))
	case "exists":
		_, err := os.Stat(args[0])
		check(err)
	case "await": // until a file is there
		for {
			if _, err := os.Stat(args[0]); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	case "ids":
		fmt.Println(os.Getuid(), os.Getgid())
	case "hostname":
		host, err := os.Hostname()
		check(err)
		fmt.Println(host)
	case "addresses":
		addrs, err := net.InterfaceAddrs()
		check(err)
		fmt.Println(addrs)
	case "copy":
		_, err := io.Copy(os.Stdout, os.Stdin)
		check(err)
	case "exit":
		code, err := strconv.Atoi(args[0])
		check(err)
		os.Exit(code)
	case "serve": // 200 while the file, if one is named, exists
		go http.ListenAndServe(":"+args[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if len(args) > 1 {
				if _, err := os.Stat(args[1]); err != nil {
					http.Error(w, "no "+args[1], http.StatusServiceUnavailable)
					return
				}
			}
			fmt.Fprintln(w, "served")
		}))
	default:
		check(fmt.Errorf("no command %q", name))
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
