package cli

import (
	"errors"
	"fmt"
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
	return wrongWord(c, "verb", args[0], c.SuggestionsFor(args[0]))
}

// flagError says which flag was meant. Before an unknown verb its flags are unknown too: then the verb is the error.
func flagError(c *cobra.Command, err error) error {
	if c.HasSubCommands() && c.Flags().NArg() > 0 {
		return knownVerb(c, c.Flags().Args())
	}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || unknown.GetSpecifiedShortnames() != "" {
		return &exitError{exitUsage, fmt.Errorf("see %s --help: %w", c.CommandPath(), err)}
	}
	flags := &cobra.Command{SuggestionsMinimumDistance: 2} // cobra knows words that are alike as verbs alone
	c.Flags().VisitAll(func(f *pflag.Flag) {
		flags.AddCommand(&cobra.Command{Use: "--" + f.Name, Run: func(*cobra.Command, []string) {}})
	})
	name := "--" + unknown.GetSpecifiedName()
	return wrongWord(c, "flag", name, flags.SuggestionsFor(name))
}

// wrongWord is the error of a word that is not known, with those that are like it.
func wrongWord(c *cobra.Command, kind, word string, like []string) error {
	see := fmt.Sprintf("see %s --help", c.CommandPath())
	if len(like) > 0 {
		see = fmt.Sprintf("did you mean %s %s? (%s)", c.CommandPath(), strings.Join(like, " or "), see)
	}
	return &exitError{exitUsage, fmt.Errorf("%s: there is no %s %s", see, kind, word)}
}
