package heartbeat

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"minato/internal/model"
)

// story is one agent's hearing, told step by step.
type story struct {
	t       *testing.T
	h       hearing
	now     time.Time
	members []Member
}

func begin(t *testing.T, witness string, others ...string) *story {
	s := &story{t: t, now: time.Unix(1_700_000_000, 0)}
	for _, name := range append(others, "me") {
		s.members = append(s.members, Member{Name: name})
	}
	s.h = newHearing("me", witness, s.now)
	return s
}

// pass lets time go by in which these are heard, each in its state.
func (s *story) pass(d time.Duration, loud ...string) Heard {
	var v Heard
	for end := s.now.Add(d); s.now.Before(end); {
		s.now = s.now.Add(interval)
		for _, who := range loud {
			name, state, _ := strings.Cut(who, ":")
			s.h.hear(name, map[string]model.PeerState{"": model.PeerFit, "cut": model.PeerCutOff, "new": model.PeerNew}[state], s.now)
		}
		v = s.h.judge(s.now, s.members)
	}
	return v
}

// are compares the states with text like "a=fit me=new", with " off" at the end while the witness is not heard.
func (s *story) are(v Heard, want string) {
	s.t.Helper()
	var all []string
	for _, p := range v.Peers {
		all = append(all, fmt.Sprintf("%s=%s", p.NodeName, [...]string{"fit", "new", "cut", "silent"}[p.State]))
	}
	if !v.Connected {
		all = append(all, "off")
	}
	if got := strings.Join(all, " "); got != want {
		s.t.Errorf("got %q, want %q", got, want)
	}
}

func TestWhoWasNeverHeardIsNotListed(t *testing.T) {
	s := begin(t, "", "a", "b")
	s.are(s.pass(time.Second, "a"), "a=fit me=fit")
}

func TestWhoFallsSilentIsGoneWithin700Milliseconds(t *testing.T) {
	s := begin(t, "lan", "a", "b")
	s.pass(time.Second, "lan", "a", "b")
	s.are(s.pass(patience, "lan", "a"), "a=fit b=fit me=fit")
	s.are(s.pass(interval, "lan", "a"), "a=fit b=silent me=fit")
}

func TestWhoHearsNobodyIsCutOffAndNewAfterwards(t *testing.T) {
	s := begin(t, "lan", "a", "b")
	s.pass(time.Second, "lan", "a", "b")
	s.are(s.pass(time.Second), "a=silent b=silent me=cut")
	s.are(s.pass(parting), "a=silent b=silent me=cut off")
	s.are(s.pass(interval, "lan", "a", "b"), "a=fit b=fit me=new")
	s.are(s.pass(hold-2*interval, "lan", "a", "b"), "a=fit b=fit me=new")
	s.are(s.pass(2*interval, "lan", "a", "b"), "a=fit b=fit me=fit")
}

func TestOfTwoHalvesTheOneWithTheWitnessGoesOn(t *testing.T) {
	with, without := begin(t, "lan", "a", "b"), begin(t, "lan", "a", "b")
	with.pass(time.Second, "lan", "a", "b")
	without.pass(time.Second, "lan", "a", "b")
	with.are(with.pass(time.Second, "lan"), "a=silent b=silent me=fit")
	without.are(without.pass(time.Second, "a"), "a=fit b=silent me=cut")
}

func TestOfTwoNodesTheLivingOneGoesOnThanksToTheWitness(t *testing.T) {
	s := begin(t, "lan", "a")
	s.pass(time.Second, "lan", "a")
	s.are(s.pass(time.Second, "lan"), "a=silent me=fit")
}

func TestWithoutAWitnessHalfIsEnough(t *testing.T) {
	s := begin(t, "", "a")
	s.pass(time.Second, "a")
	s.are(s.pass(time.Second), "a=silent me=fit")
}

func TestWhoIsAwayByTheAPIDoesNotCount(t *testing.T) {
	s := begin(t, "lan", "a", "b", "c", "d")
	s.pass(time.Second, "lan", "a", "b", "c", "d")
	s.are(s.pass(time.Second, "lan"), "a=silent b=silent c=silent d=silent me=cut")
	for i := range 4 {
		s.members[i].Away = true
	}
	s.are(s.pass(time.Second, "lan"), "a=silent b=silent c=silent d=silent me=new")
}

func TestWhatOthersSayOfThemselvesIsBelieved(t *testing.T) {
	s := begin(t, "", "a", "b")
	s.are(s.pass(interval, "a:cut", "b:new"), "a=cut b=new me=fit")
}

func TestWhoIsNoMemberAnyMoreIsForgotten(t *testing.T) {
	s := begin(t, "", "a", "b")
	s.pass(time.Second, "a", "b")
	s.members = s.members[1:]
	s.are(s.pass(time.Second, "b"), "b=fit me=fit")
}

func TestAPauseOfThisProcessIsNotOthersSilence(t *testing.T) {
	s := begin(t, "lan", "a", "b")
	s.pass(time.Second, "lan", "a", "b")
	s.now = s.now.Add(time.Minute)
	s.are(s.pass(interval), "a=fit b=fit me=new")
}

func TestAWitnessThatWasNeverHeardIsMissed(t *testing.T) {
	s := begin(t, "lan", "a")
	s.are(s.pass(interval), "me=fit")
	s.are(s.pass(parting+interval), "me=cut off")
}

func FuzzDecode(f *testing.F) {
	f.Add(encode("node1", model.PeerNew))
	f.Add([]byte("mnto\x01\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if name, state, ok := decode(b); ok && string(encode(name, state)) != string(b) {
			t.Errorf("%q is read as %q, %d", b, name, state)
		}
	})
}
