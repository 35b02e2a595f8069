package walkthrough

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"

	"k8s.io/apimachinery/pkg/runtime/serializer"
)

func TestExamplesHoldOnlyFieldsThatKubernetesKnows(t *testing.T) {
	decode := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	files := 0
	err := filepath.WalkDir("../../examples", func(file string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(file) != ".yaml" {
			return err
		}
		files++
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		for documents := yaml.NewDocumentDecoder(f); ; {
			buf := make([]byte, 64<<10)
			n, err := documents.Read(buf)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if _, _, err := decode.Decode(buf[:n], nil, nil); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	})
	if err != nil || files < 10 {
		t.Fatalf("%d files, want many more: %v", files, err)
	}
}

func TestEveryExampleFolderSaysHowToStartIt(t *testing.T) {
	readmes, err := filepath.Glob("../../examples/0*/README.md")
	if err != nil || len(readmes) < 3 {
		t.Fatalf("%d folders (%v), want more", len(readmes), err)
	}
	for _, file := range readmes {
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), "minato up") {
			t.Errorf("%s shows no `minato up` (%v)", file, err)
		}
	}
}
