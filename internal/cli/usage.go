package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usageErrors has every wrong command line of c and the verbs below it end with exit code 2 and what was meant.
func usageErrors(c *cobra.Command) {
	if c.HasSubCommands() {
		c.Args, c.SuggestionsMinimumDistance = knownVerb, 2
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		c.DisableFlagsInUseLine = true
	} else if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return &exitError{exitUsage, fmt.Errorf("write it as %s (see %s --help): %w", c.UseLine(), c.CommandPath(), err)}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		usageErrors(sub)
	}
}

// knownVerb refuses what is left on the command line of a verb that only has verbs below it.
func knownVerb(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !c.HasParent() && slices.Contains(kubectlVerbs(), args[0]) {
		return wrongWord(c, "verb", args[0], []string{"kubectl " + args[0]})
	}
	return wrongWord(c, "verb", args[0], c.SuggestionsFor(args[0]))
}

// kubectlVerbs are those of kubectl that people type after minato.
func kubectlVerbs() []string {
	return []string{"get", "describe", "apply", "create", "edit", "patch", "logs", "exec", "run", "expose", "scale", "rollout", "label", "wait", "port-forward", "cp"}
}

// alike are the words of a list that could be meant by one that is not in it.
func alike(word string, list []string) []string {
	words := &cobra.Command{SuggestionsMinimumDistance: 2} // cobra knows words that are alike as verbs alone
	for _, w := range list {
		words.AddCommand(&cobra.Command{Use: w, Run: func(*cobra.Command, []string) {}})
	}
	return words.SuggestionsFor(word)
}

// flagError says which flag was meant. Before an unknown verb its flags are unknown too: then the verb is the error.
func flagError(c *cobra.Command, err error) error {
	if c.HasSubCommands() && c.Flags().NArg() > 0 {
		return knownVerb(c, c.Flags().Args())
	}
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		return &exitError{exitUsage, wrongValue(invalid)}
	}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || unknown.GetSpecifiedShortnames() != "" {
		return &exitError{exitUsage, fmt.Errorf("see %s --help: %w", c.CommandPath(), err)}
	}
	var flags []string
	c.Flags().VisitAll(func(f *pflag.Flag) { flags = append(flags, "--"+f.Name) })
	name := "--" + unknown.GetSpecifiedName()
	return wrongWord(c, "flag", name, alike(name, flags))
}

// wrongValue says what a flag takes.
func wrongValue(e *pflag.InvalidValueError) error {
	flag, value := e.GetFlag(), e.GetValue()
	switch kind := flag.Value.Type(); kind {
	case "int", "uint16":
		return fmt.Errorf("give --%s a number: %q is none", flag.Name, value)
	case "bool":
		return fmt.Errorf("give --%s alone, or as --%s=false: %q is neither", flag.Name, flag.Name, value)
	case "duration":
		return fmt.Errorf("give --%s a time such as 500ms or 2s: %q is none", flag.Name, value)
	}
	return fmt.Errorf("give --%s %w: %q is none", flag.Name, errors.Unwrap(e), value)
}

// wrongWord is the error of a word that is not known, with those that are like it.
func wrongWord(c *cobra.Command, kind, word string, like []string) error {
	see := fmt.Sprintf("see %s --help", c.CommandPath())
	if len(like) > 0 {
		see = fmt.Sprintf("did you mean %s %s? (%s)", c.CommandPath(), strings.Join(like, " or "), see)
	}
	return &exitError{exitUsage, fmt.Errorf("%s: there is no %s %s", see, kind, word)}
}

// helpCommand is cobra's, but that a verb which is not there is an error.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [VERB...]", Short: "Say what a verb does", Hidden: true,
		RunE: func(c *cobra.Command, args []string) error {
			verb, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 && verb.HasSubCommands() {
				return knownVerb(verb, rest)
			}
			return verb.Help()
		},
	}
}
