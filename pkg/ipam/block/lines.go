package block

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/attachment"
)

// The file of a block is lines, each a key and its values, which have no white space:
//
//	space default
//	cidr 10.0.0.16/28
//	uid <UID of the object>
//	state owned
//	claim <claim>
//	idle <nanoseconds since 1970, or since the machine was booted>
//	looked <another space>
//	used <address> <network> <container ID> <interface> <pod UID> <pod>
//	freed <address> <time as above>
//	end
//
// and so is tended, of times, a name and a number. Each Add reads both and writes a block: as JSON,
// that was most of what an Add costs.
const lastLine = "end"

// MarshalText returns the lines.
func (b *local) MarshalText() ([]byte, error) {
	size := 256
	for _, h := range b.Used {
		size += 64 + len(h.Network) + len(h.ContainerID) + len(h.IfName) + len(h.PodUID) + len(h.Pod)
	}
	text := make([]byte, 0, size)
	for _, line := range [...][2]string{
		{"space", b.Space},
		{"cidr", b.CIDR},
		{"uid", string(b.UID)},
		{"state", string(b.State)},
		{"claim", b.Claim},
		{"idle", timeText(b.Idle)},
	} {
		if strings.ContainsFunc(line[1], unicode.IsSpace) {
			return nil, fmt.Errorf("%s %.100q has white space", line[0], line[1])
		}
		if line[1] != "" {
			text = append(text, line[0]+" "+line[1]+"\n"...)
		}
	}
	for _, space := range b.Looked {
		text = append(text, "looked "+space+"\n"...)
	}
	for a, h := range b.Used { // Holder.check has looked for white space
		text = append(a.AppendTo(append(text, "used "...)), ' ')
		text = append(append(text, h.Network...), ' ')
		text = append(append(text, h.ContainerID...), ' ')
		text = append(append(text, h.IfName...), ' ')
		text = append(append(text, h.PodUID...), ' ')
		text = append(append(text, h.Pod...), '\n')
	}
	for a, t := range b.Freed {
		text = append(a.AppendTo(append(text, "freed "...)), ' ')
		text = append(strconv.AppendInt(text, t.UnixNano(), 10), '\n')
	}
	return append(text, lastLine+"\n"...), nil
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.UnixNano(), 10)
}

// UnmarshalText reads them. Text that is cut off, or has other lines, is an error.
func (b *local) UnmarshalText(text []byte) error {
	b.Used, b.Freed = make(map[netip.Addr]Holder, Size), map[netip.Addr]time.Time{}
	return eachLine(text, b.set)
}

func eachLine(text []byte, set func(key, value string) error) error {
	rest, whole := strings.CutSuffix(string(text), lastLine+"\n")
	for whole && rest != "" {
		var line string
		line, rest, whole = strings.Cut(rest, "\n")
		key, value, _ := strings.Cut(line, " ")
		if err := set(key, value); err != nil {
			return fmt.Errorf("line %.200q: %w", line, err)
		}
	}
	if !whole {
		return errors.New("its end is missing")
	}
	return nil
}

func (b *local) set(key, value string) (err error) {
	var a netip.Addr
	if key == "used" || key == "freed" {
		first, rest, _ := strings.Cut(value, " ")
		if a, err = netip.ParseAddr(first); err != nil {
			return err
		}
		value = rest
	}
	switch key {
	case "space":
		b.Space = value
	case "cidr":
		b.CIDR = value
	case "uid":
		b.UID = types.UID(value)
	case "state":
		b.State = state(value)
	case "claim":
		b.Claim = value
	case "idle":
		b.Idle, err = parseTime(value)
	case "looked":
		b.Looked = append(b.Looked, value)
	case "used":
		b.Used[a], err = parseHolder(value)
	case "freed":
		b.Freed[a], err = parseTime(value)
	default:
		err = errNoKey
	}
	return err
}

var errNoKey = errors.New("no such key")

// times returns those of tended, by their keys.
func (l *tended) times() map[string]*time.Time {
	return map[string]*time.Time{
		"recalls": &l.Recalls, "all": &l.All, "own": &l.Own, "wall": &l.OwnWall, "tried": &l.Tried,
	}
}

// MarshalText returns the lines.
func (l *tended) MarshalText() (text []byte, err error) {
	for key, t := range l.times() {
		if !t.IsZero() {
			text = append(text, key+" "+timeText(*t)+"\n"...)
		}
	}
	if l.OwnName != "" {
		text = append(text, "name "+l.OwnName+"\n"...)
	}
	if l.Recollected != 0 {
		text = append(text, "recollected "+strconv.FormatUint(l.Recollected, 10)+"\n"...)
	}
	return append(text, lastLine+"\n"...), nil
}

// UnmarshalText reads them.
func (l *tended) UnmarshalText(text []byte) error {
	times := l.times()
	return eachLine(text, func(key, value string) (err error) {
		t, ok := times[key]
		switch {
		case ok:
			*t, err = parseTime(value)
		case key == "name":
			l.OwnName = value
		case key == "recollected":
			l.Recollected, err = strconv.ParseUint(value, 10, 64)
		default:
			err = errNoKey
		}
		return err
	})
}

func parseHolder(text string) (Holder, error) {
	part := strings.Split(text, " ")
	if len(part) != 5 {
		return Holder{}, errors.New("it does not say who has the address")
	}
	return Holder{
		attachment.ID{Network: part[0], ContainerID: part[1], IfName: part[2]},
		types.UID(part[3]),
		part[4],
	}, nil
}

func parseTime(text string) (time.Time, error) {
	ns, err := strconv.ParseInt(text, 10, 64)
	return time.Unix(0, ns), err
}
