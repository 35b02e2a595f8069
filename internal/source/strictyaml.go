package source

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Strict reading of a small YAML language. It is not the library's own, because its errors name Go types, and a user
// wants to know the line and the key.

// field takes the value of one key.
type field func(*yaml.Node) error

// ignored is a key that is known and not used.
func ignored(*yaml.Node) error { return nil }

// at is an error with the line of n. It may wrap another.
func at(n *yaml.Node, format string, v ...any) error {
	return fmt.Errorf("line %d: "+format, append([]any{n.Line}, v...)...)
}

// fields reads a mapping: each key must be known and may be there once.
func fields(n *yaml.Node, what string, known map[string]field) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return at(n, "%s must be a mapping with the keys %s", what, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		take := known[key.Value]
		switch {
		case take == nil:
			return at(key, "unknown key %q, %s has the keys %s", key.Value, what, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		case seen[key.Value]:
			return at(key, "key %q is there twice", key.Value)
		}
		seen[key.Value] = true
		if err := take(value); err != nil {
			return err
		}
	}
	return nil
}

// each reads a list. One without content is empty.
func each(n *yaml.Node, what string, item field) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		return at(n, "%s must be a list", what)
	}
	for _, i := range n.Content {
		if err := item(i); err != nil {
			return err
		}
	}
	return nil
}

// into reads a value of a simple type.
func into[T string | bool](to *T) field {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode || n.Decode(to) != nil {
			return at(n, "%q is not a %T", n.Value, *to)
		}
		return nil
	}
}
