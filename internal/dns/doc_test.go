package dns

import (
	"os"
	"strings"
	"testing"

	"minato/internal/model"
)

// The example in the documentation is what the table prints.
func TestDocumentedExample(t *testing.T) {
	b, err := os.ReadFile("../../docs/dns.md")
	must(t, err)
	_, rest, _ := strings.Cut(string(b), "```\n")
	example, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("docs/dns.md has no example")
	}
	var got strings.Builder
	must(t, tableOf(t, with(model.Empty(),
		service("kube-system/kube-dns", "10.96.0.10", []string{"dns/udp/53"}),
		service("default/web", "10.96.1.10", []string{"http/tcp/80"}, ready("10.244.1.5", "http/tcp/8080")),
	)).WriteText(&got))
	if got.String() != example {
		t.Errorf("docs/dns.md shows\n%s\nand the table prints\n%s", example, got.String())
	}
}
