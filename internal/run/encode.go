package run

import (
	"encoding/json"
	"fmt"
	"io"

	"sigs.k8s.io/yaml"

	"minato/internal/web"
)

// encode writes what programs read, with the field names of v's JSON.
func encode(w io.Writer, output string, v any) error {
	if output != web.YAML {
		return json.NewEncoder(w).Encode(v)
	}
	text, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("write as YAML: %w", err)
	}
	_, err = w.Write(text)
	return err
}
