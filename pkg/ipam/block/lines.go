package block

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// inUse are addresses and who has them, freed addresses and since when. In a file they are lines, "address network containerID ifName podUID
// pod" and "address time": as objects, reading them was most of what an Add costs.
type (
	inUse map[netip.Addr]Holder
	freed map[netip.Addr]time.Time
)

// MarshalJSON gives the lines; Holder.check has made sure that no part has a space.
func (u inUse) MarshalJSON() ([]byte, error) {
	return lines(u, func(h Holder) string {
		return strings.Join([]string{h.Network, h.ContainerID, h.IfName, string(h.PodUID), h.Pod}, " ")
	})
}

// UnmarshalJSON reads them.
func (u *inUse) UnmarshalJSON(data []byte) (err error) {
	*u, err = fromLines(data, func(line string) (Holder, error) {
		part := strings.Split(line, " ")
		if len(part) != 5 {
			return Holder{}, fmt.Errorf("%.200q does not say who has an address", line)
		}
		return Holder{part[0], part[1], part[2], types.UID(part[3]), part[4]}, nil
	})
	return err
}

// MarshalJSON gives the lines.
func (f freed) MarshalJSON() ([]byte, error) {
	return lines(f, func(t time.Time) string { return t.Format(time.RFC3339Nano) })
}

// UnmarshalJSON reads them.
func (f *freed) UnmarshalJSON(data []byte) (err error) {
	*f, err = fromLines(data, func(line string) (time.Time, error) { return time.Parse(time.RFC3339Nano, line) })
	return err
}

func lines[V any](of map[netip.Addr]V, text func(V) string) ([]byte, error) {
	list := make([]string, 0, len(of))
	for a, v := range of {
		list = append(list, a.String()+" "+text(v))
	}
	return json.Marshal(list)
}

func fromLines[V any](data []byte, parse func(string) (V, error)) (map[netip.Addr]V, error) {
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	of := make(map[netip.Addr]V, len(list))
	for _, line := range list {
		addr, text, _ := strings.Cut(line, " ")
		a, err := netip.ParseAddr(addr)
		if err != nil {
			return nil, err
		}
		if of[a], err = parse(text); err != nil {
			return nil, err
		}
	}
	return of, nil
}
