//go:build linux

package server

import (
	"net/url"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

func TestLogOptions(t *testing.T) {
	now := time.Date(2020, 1, 1, 12, 0, 0, 0, time.UTC)
	options, previous, err := logOptions(url.Values{
		"follow": {"true"}, "timestamps": {"true"}, "previous": {"true"}, "tailLines": {"3"}, "limitBytes": {"100"}, "sinceSeconds": {"60"},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	if !options.Follow || !options.Timestamp || !previous || *options.TailLines != 3 || *options.LimitBytes != 100 || !options.Since.Equal(now.Add(-time.Minute)) {
		t.Errorf("options %+v, previous %v", options, previous)
	}
	options, previous, err = logOptions(url.Values{"sinceTime": {"2019-12-31T00:00:00Z"}}, now)
	if err != nil || options.Follow || previous || options.TailLines != nil || options.Since.Year() != 2019 {
		t.Errorf("options %+v, %v", options, err)
	}
	for _, bad := range []url.Values{{"tailLines": {"-1"}}, {"tailLines": {"x"}}, {"limitBytes": {"-5"}}, {"sinceSeconds": {"0"}}, {"sinceTime": {"yesterday"}}} {
		if _, _, err := logOptions(bad, now); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

func TestAContainerWithoutALogSaysWhyItWaits(t *testing.T) {
	for waiting, want := range map[string]string{
		"ErrImagePull": "image can't be pulled", "ImagePullBackOff": "trying and failing to pull image", "ContainerCreating": "ContainerCreating",
	} {
		pod := &v1.Pod{Status: v1.PodStatus{ContainerStatuses: []v1.ContainerStatus{{Name: "c", State: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: waiting}}}}}}
		if got := reason(pod, "c"); got != want {
			t.Errorf("%s: %q, want %q", waiting, got, want)
		}
	}
}
