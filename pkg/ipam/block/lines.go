package block

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// A file of the local state is lines, each a key and its values. None has a line end, and those
// before the last one no space. The file of a block:
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
// Each Add reads and writes some of them: as JSON, that was most of what an Add costs.
const lastLine = "end\n"

// file is what one file has.
type file interface {
	// lines adds all that it has.
	lines(*lines)
	// set takes one line of it.
	set(key, value string) error
}

// lines is a file as it is written. Its error is that of a value that no line can have.
type lines struct {
	text []byte
	err  error
}

// begin begins a line, with an address unless that is none.
func (l *lines) begin(key string, a netip.Addr) {
	l.text = append(l.text, key...)
	if a.IsValid() {
		l.text = a.AppendTo(append(l.text, ' '))
	}
}

// add adds a line: its key, an address unless that is none, and other values.
func (l *lines) add(key string, a netip.Addr, values ...string) {
	l.begin(key, a)
	for i, v := range values {
		if strings.IndexByte(v, '\n') >= 0 || i < len(values)-1 && strings.IndexByte(v, ' ') >= 0 {
			l.err = fmt.Errorf("%s %.100q has white space", key, v)
		}
		l.text = append(append(l.text, ' '), v...)
	}
	l.text = append(l.text, '\n')
}

// maybe adds a line if it has a value.
func (l *lines) maybe(key, value string) {
	if value != "" {
		l.add(key, netip.Addr{}, value)
	}
}

// number adds a line unless the number is 0.
func (l *lines) number(key string, n uint64) {
	if n != 0 {
		l.add(key, netip.Addr{}, strconv.FormatUint(n, 10))
	}
}

// time adds a line if there is a time.
func (l *lines) time(key string, a netip.Addr, t time.Time) {
	if !t.IsZero() {
		l.begin(key, a)
		l.text = append(strconv.AppendInt(append(l.text, ' '), t.UnixNano(), 10), '\n')
	}
}

// cutAddr returns the address with which a value begins, and what follows it.
func cutAddr(value string) (a netip.Addr, rest string, err error) {
	first, rest, _ := strings.Cut(value, " ")
	a, err = netip.ParseAddr(first)
	return a, rest, err
}

func parseTime(text string) (time.Time, error) {
	ns, err := strconv.ParseInt(text, 10, 64)
	return time.Unix(0, ns), err
}

// encode returns a file as it is written.
func encode(f file) ([]byte, error) {
	l := &lines{text: make([]byte, 0, 1<<10)}
	f.lines(l)
	return append(l.text, lastLine...), l.err
}

// decode reads a file. Text that is cut off, or has other lines, is an error. That of an older
// Braid may be JSON.
func decode(text []byte, f file) error {
	if bytes.HasPrefix(text, []byte("{")) {
		return strictjson.Decode(text, f)
	}
	rest, whole := strings.CutSuffix(string(text), lastLine)
	for whole && rest != "" {
		var line string
		line, rest, whole = strings.Cut(rest, "\n")
		key, value, _ := strings.Cut(line, " ")
		if err := f.set(key, value); err != nil {
			return fmt.Errorf("line %.200q: %w", line, err)
		}
	}
	if !whole {
		return errors.New("its end is missing")
	}
	return nil
}

var errNoKey = errors.New("no such key")

func (b *local) lines(l *lines) {
	l.maybe("space", b.Space)
	l.maybe("cidr", b.CIDR)
	l.maybe("uid", string(b.UID))
	l.maybe("state", string(b.State))
	l.maybe("claim", b.Claim)
	l.time("idle", netip.Addr{}, b.Idle)
	for _, space := range b.Looked {
		l.add("looked", netip.Addr{}, space)
	}
	for a, h := range b.Used {
		l.add("used", a, h.Network, h.ContainerID, h.IfName, string(h.PodUID), h.Pod)
	}
	for a, t := range b.Freed {
		l.time("freed", a, t)
	}
}

func (b *local) set(key, value string) (err error) {
	var a netip.Addr
	if key == "used" || key == "freed" {
		if a, value, err = cutAddr(value); err != nil {
			return err
		}
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

// parseHolder reads the five parts of a holder, some of which may be empty.
func parseHolder(text string) (Holder, error) {
	part := strings.SplitN(text, " ", 5)
	if len(part) < 5 {
		return Holder{}, errors.New("it does not say who has the address")
	}
	return Holder{
		attachment.ID{Network: part[0], ContainerID: part[1], IfName: part[2]},
		types.UID(part[3]),
		part[4],
	}, nil
}

func (h *held) lines(l *lines) {
	by := &h.Holder
	l.add("holder", netip.Addr{}, by.Network, by.ContainerID, by.IfName, string(by.PodUID), by.Pod)
	for _, a := range h.Got {
		l.add("got", a)
	}
	for _, a := range h.Local {
		l.add("local", a.Addr, a.Space)
	}
	for _, a := range h.Shared {
		l.add("shared", a.Addr, a.Space)
	}
}

func (h *held) set(key, value string) (err error) {
	if key == "holder" {
		h.Holder, err = parseHolder(value)
		return err
	}
	a, space, err := cutAddr(value)
	switch key {
	case "got":
		h.Got = append(h.Got, a)
	case "local":
		h.Local = append(h.Local, heldAddr{space, a})
	case "shared":
		h.Shared = append(h.Shared, heldAddr{space, a})
	default:
		err = errNoKey
	}
	return err
}

func (f *fullRange) lines(l *lines) { l.time("at", netip.Addr{}, f.At) }

func (f *fullRange) set(key, value string) (err error) {
	if key != "at" {
		return errNoKey
	}
	f.At, err = parseTime(value)
	return err
}

func (n *nodeState) lines(l *lines) {
	l.maybe("boot", n.Boot)
	l.maybe("node", n.Name)
	l.maybe("uid", string(n.UID))
	l.number("nodes", uint64(n.Nodes)) //nolint:gosec // it is a count
	for _, name := range n.Former {
		l.add("former", netip.Addr{}, name)
	}
	for key, t := range n.times {
		l.time(key, netip.Addr{}, *t)
	}
	l.maybe("own-by", n.OwnName)
	l.number("recollected", n.Recollected)
}

// times yields the times of the node, by their keys.
func (n *nodeState) times(yield func(string, *time.Time) bool) {
	_ = yield("counted", &n.Counted) && yield("recalls", &n.Recalls) && yield("all", &n.All) &&
		yield("own", &n.Own) && yield("own-wall", &n.OwnWall) && yield("tried", &n.Tried)
}

func (n *nodeState) set(key, value string) (err error) {
	for k, t := range n.times {
		if k == key {
			*t, err = parseTime(value)
			return err
		}
	}
	switch key {
	case "boot":
		n.Boot = value
	case "node":
		n.Name = value
	case "uid":
		n.UID = types.UID(value)
	case "nodes":
		var count uint64
		count, err = strconv.ParseUint(value, 10, 31)
		n.Nodes = int(count) //nolint:gosec // it has 31 bits
	case "former":
		n.Former = append(n.Former, value)
	case "own-by":
		n.OwnName = value
	case "recollected":
		n.Recollected, err = strconv.ParseUint(value, 10, 64)
	default:
		err = errNoKey
	}
	return err
}
