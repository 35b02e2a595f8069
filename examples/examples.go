// Package examples holds the YAML of these folders for the program, whose tutorial applies it.
//
// It reads none of it.
package examples

import "embed"

// Files are the YAML files, as FOLDER/FILE.
//
//go:embed 0*/*.yaml
var Files embed.FS
