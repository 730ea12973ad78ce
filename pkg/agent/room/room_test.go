package room

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/braid-cni/braid/pkg/capacity"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/record"
)

// TestRecordsAreReadForPodsThatWait: while each pod has all that it requests, no record is read.
func TestRecordsAreReadForPodsThatWait(t *testing.T) {
	var records []*record.Record
	read := 0
	a := &asked{Publisher: New()}
	a.Records = func() ([]*record.Record, error) { read++; return records, nil }
	requests := map[string]int64{"braid-cni.io/web.lan": 1}
	pods := []podState{{"web/p", "uid-p", requests}}
	is := func(what string, times int, made int64, complete bool) {
		t.Helper()
		got, err := a.bound(pods)
		if err != nil || len(got) != 1 || read != times ||
			got[0].Made["braid-cni.io/web.lan"] != made || got[0].Complete != complete ||
			!reflect.DeepEqual(got[0].Requests, requests) {
			t.Errorf("%s: %+v, %v, read %d times", what, got, err, read)
		}
	}
	is("not begun", 1, 0, false)
	rec := &record.Record{Pod: record.Pod{UID: "uid-p"}, Attachments: []record.Attachment{
		{Attachment: plan.Attachment{Name: "web/lan"}, State: record.Added},
	}}
	records = []*record.Record{{Pod: record.Pod{UID: "another"}, Complete: true}, rec}
	is("at work", 2, 1, false)
	rec.Complete = true
	is("complete", 3, 1, true)
	is("known to be", 3, 0, true)
	if n := capacity.NetworkOf("braid-cni.io/web.lan", 5, must(a.bound(pods))); n.Capacity() != 6 {
		t.Errorf("with 5 free it is %+v", n)
	}
	must(a.bound(nil))
	is("gone, and back", 4, 1, true)
}

func must(pods []capacity.Pod, err error) []capacity.Pod {
	if err != nil {
		panic(err)
	}
	return pods
}

// TestU10CapacityPace: what happens is looked at soon, and it is known whether it is too early to
// write the Node again.
func TestU10CapacityPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, wake := time.Now(), make(waker, 1)
		writes := map[int]bool{0: true, 25: true} // by the second
		var calls []string
		for _, second := range []int{3, 13, 25} {
			time.AfterFunc(time.Duration(second)*time.Second, wake.wake)
		}
		paced(t.Context(), 10*time.Second, wake, func(early bool) (more, wrote bool) {
			second := int(time.Since(began).Seconds())
			calls = append(calls, fmt.Sprint(second, early))
			return len(calls) < 6, writes[second]
		})
		want := []string{"0 false", "3 true", "10 false", "13 false", "23 false", "25 false"}
		if !slices.Equal(calls, want) {
			t.Errorf("looked at %v, want %v", calls, want)
		}
	})
}
