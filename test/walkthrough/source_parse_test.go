//go:build linux

package walkthrough

import (
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCommandsFollowAPromptAndGoOnAfterAContinuation(t *testing.T) {
	a := article{command: regexp.MustCompile(`^(?:me@pi:~ \$|/ #) (.+)`)}
	got := a.commands([]string{"text", "me@pi:~ $ k get svc", "NAME", "me@pi:~ $ for X in a; do", "> echo $X;", "> done", "/ # env", "> quoted text"})
	want := []string{"k get svc", "for X in a; do echo $X; done", "env"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNormalForgetsNamesAddressesAndAges(t *testing.T) {
	for command, want := range map[string]string{
		"k exec -it sample-deployment-9dc-x7 -c redis /bin/bash":         "kubectl exec -it POD -c redis /bin/bash",
		"kubectl exec -it sample-deployment-1a-2b -c redis -- /bin/bash": "kubectl exec -it POD -c redis /bin/bash",
		"curl  10.0.0.1:8080": "curl ADDRESS:8080",
		"k delete -f sample-externalip.yaml #しなくても良い":                       "kubectl delete -f sample-externalip.yaml",
		"minikube service nginx-np --url":                                   "minato service nginx-np --url",
		"for P in `k get pods`; do k exec -it ${P} -- cp a b; done":         "for P in `kubectl get pods`; do kubectl exec -it ${P} cp a b; done",
		"kubectl delete -f sample-deployment.yaml -f sample-clusterip.yaml": "kubectl delete -f sample-deployment.yaml -f sample-clusterip.yaml",
	} {
		if got := normal(command); got != want {
			t.Errorf("%q: got %q, want %q", command, got, want)
		}
	}
}

func TestABlockThatLostItsIndentGetsItBack(t *testing.T) {
	b := yamlBlock{"a.yaml", []int{0, 0, 2}}
	got, rest := b.take(t, []string{"# a.yaml", "apiVersion: v1", "metadata:", "name: x", "rest"})
	if want := "apiVersion: v1\nmetadata:\n  name: x\n"; got != want || len(rest) != 1 {
		t.Errorf("got %q and %d lines after it, want %q and 1", got, len(rest), want)
	}
}

func TestFencedBlocksAreNamedByTheirFirstLine(t *testing.T) {
	text := "text\n```yaml\n# a.yaml\nkind: A\n```\n```shell\n# b.yaml\n```\n```yaml\n# c.yaml\n---\nkind: C\n```\n"
	want := map[string]string{"a.yaml": "kind: A\n", "c.yaml": "---\nkind: C\n"}
	if diff := cmp.Diff(want, fencedFiles(text)); diff != "" {
		t.Error(diff)
	}
}
