package ingress

import (
	"errors"
	"net/url"
	"strings"
)

// ErrPath says that a request's path is not one: proxy and backend could read it differently.
var ErrPath = errors.New("ambiguous path")

// Path is a path in its one form: what is matched is what is forwarded.
type Path struct {
	Decoded string // for matching: without escapes, "." and ".." elements, and empty elements
	Escaped string // the same elements as the client escaped them
}

// ParsePath brings the escaped path of a request into its one form, as nginx does before it matches: empty elements
// are merged, "." and ".." resolved. A path that decoding would divide otherwise is an ErrPath, because a backend that
// decodes again would see another one (the split view behind CVE-2025-66490 and its family): an escaped slash,
// backslash or NUL, ".." above the root, and "..;", which some backends take for "..".
func ParsePath(escaped string) (Path, error) {
	if !strings.HasPrefix(escaped, "/") {
		return Path{}, ErrPath
	}
	if plain(escaped) {
		return Path{escaped, escaped}, nil
	}
	var decoded, kept []string
	elements := strings.Split(escaped[1:], "/")
	for i, e := range elements {
		d, err := url.PathUnescape(e)
		if err != nil || strings.ContainsAny(d, "/\\\x00") {
			return Path{}, ErrPath
		}
		last := i == len(elements)-1
		name, _, parameter := strings.Cut(d, ";")
		switch {
		case parameter && (name == "." || name == ".."):
			return Path{}, ErrPath
		case d == "..":
			if len(decoded) == 0 {
				return Path{}, ErrPath
			}
			decoded, kept = decoded[:len(decoded)-1], kept[:len(kept)-1]
		case d != "" && d != ".":
			decoded, kept = append(decoded, d), append(kept, e)
			continue
		}
		if last { // "/a/", "/a/." and "/a/b/.." are the folder a
			decoded, kept = append(decoded, ""), append(kept, "")
		}
	}
	return Path{"/" + strings.Join(decoded, "/"), "/" + strings.Join(kept, "/")}, nil
}

// plain reports whether the path is in its one form already: most are, and those cost nothing.
func plain(s string) bool {
	for i := range len(s) {
		switch s[i] {
		case '%', '\\', 0:
			return false
		case '/':
			if i+1 < len(s) && (s[i+1] == '/' || s[i+1] == '.') {
				return false
			}
		}
	}
	return true
}

// rulePath is the path of a rule as it is compared with requests: a prefix has no slash at its end.
func rulePath(path string, exact bool) (string, error) {
	// What the user wrote is not escaped, but where it is, it is meant as the client will write it.
	if _, err := url.PathUnescape(path); err != nil {
		path = strings.ReplaceAll(path, "%", "%25")
	}
	p, err := ParsePath(path)
	if err != nil {
		return "", err
	}
	if !exact {
		return strings.TrimSuffix(p.Decoded, "/"), nil
	}
	return p.Decoded, nil
}
