package oracle

import (
	"os"
	"testing"
)

// folders are what tempDir made.
var folders []string

// tempDir makes a folder that outlives one test, for what all tests share.
func tempDir() (string, error) {
	dir, err := os.MkdirTemp("", "minato-oracle-")
	folders = append(folders, dir)
	return dir, err
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, f := range folders {
		os.RemoveAll(f)
	}
	os.Exit(code)
}
