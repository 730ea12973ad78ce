package nft

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nl"
)

// found is a rule of a table.
type found struct {
	chain string
	// handle is the kernel's number of it, as it came.
	handle []byte
	// key and names are those of the attachment, as its comment has them; empty for rules of none.
	key, names string
	// exprs are its expressions as they came.
	exprs []byte
}

// list returns the rules of a table, chain by chain in their order, and the number of the state
// that they are of. A table that is not there has none.
//
// The kernel takes a list while it makes the changes of others, and notices only some of what that
// spoils. So those that are under way are waited for first, and a list during which others came is
// taken again.
func (c *Conn) list(ctx context.Context, t *Table) (generation uint32, rules []found, err error) {
	for range tries {
		before, err := c.generation(ctx)
		if err != nil {
			return 0, nil, err
		}
		if _, err := c.socket.Batch(ctx, unix.NFNL_SUBSYS_NFTABLES, 0, nil); err != nil {
			return 0, nil, fmt.Errorf("wait for changes of nftables: %w", err)
		}
		answers, err := c.socket.Dump(ctx, nl.NetfilterMessage{
			Type: message(unix.NFT_MSG_GETRULE), Family: byte(t.Family),
			Attrs: text(nil, unix.NFTA_RULE_TABLE, t.Name),
		})
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return 0, nil, fmt.Errorf("list rules of nftables table %s: %w", t.Name, supported(err))
		}
		after, err := c.generation(ctx)
		if err != nil {
			return 0, nil, err
		}
		if before == after {
			return before, parse(answers), nil
		}
	}
	return 0, nil, fmt.Errorf("list rules of nftables table %s: %w", t.Name, unix.ERESTART)
}

// parse reads a list. While others prepare a change, the kernel may list a rule twice.
func parse(answers [][]byte) []found {
	rules := make([]found, 0, len(answers))
	seen := make(map[string]bool, len(answers))
	for _, a := range answers {
		var r found
		for kind, value := range attrs(a) {
			switch kind &^ unix.NLA_F_NESTED {
			case unix.NFTA_RULE_CHAIN:
				r.chain = string(bytes.TrimRight(value, "\x00"))
			case unix.NFTA_RULE_HANDLE:
				r.handle = value
			case unix.NFTA_RULE_USERDATA:
				r.key, r.names = parseComment(value)
			case unix.NFTA_RULE_EXPRESSIONS:
				r.exprs = value
			}
		}
		if !seen[string(r.handle)] {
			seen[string(r.handle)] = true
			rules = append(rules, r)
		}
	}
	return rules
}

// generation returns the number of the ruleset's state.
func (c *Conn) generation(ctx context.Context) (uint32, error) {
	answer, err := c.socket.Do(ctx, nl.NetfilterMessage{Type: message(unix.NFT_MSG_GETGEN)})
	if err != nil {
		return 0, fmt.Errorf("get nftables generation: %w", supported(err))
	}
	for kind, value := range attrs(answer) {
		if kind == unix.NFTA_GEN_ID && len(value) == 4 {
			return binary.BigEndian.Uint32(value), nil
		}
	}
	return 0, errors.New("get nftables generation: the kernel's answer has none")
}

// is reports whether the rule consists of these operations.
func (r found) is(want Expr) bool {
	i := 0
	for _, element := range nl.Attrs(r.exprs) {
		if i == len(want) || !contains(element,
			nest(text(nil, unix.NFTA_EXPR_NAME, want[i].name), unix.NFTA_EXPR_DATA, want[i].attrs)) {
			return false
		}
		i++
	}
	return i == len(want)
}

// contains reports whether all attributes of want are among those of have: the kernel adds those
// that have their default.
func contains(have, want []byte) bool {
	for header, value := range nl.Attrs(want) {
		kind, nested := header&^unix.NLA_F_NESTED, header&unix.NLA_F_NESTED != 0
		found := false
		for h, v := range nl.Attrs(have) {
			found = found || h&^unix.NLA_F_NESTED == kind &&
				(nested && contains(v, value) || bytes.Equal(v, value))
		}
		if !found {
			return false
		}
	}
	return true
}

// headerLength is the length of struct nfgenmsg, in bytes.
const headerLength = 4

// attrs returns the attributes of a message without its netlink header.
func attrs(message []byte) iter.Seq2[uint16, []byte] {
	return nl.Attrs(message[min(len(message), headerLength):])
}
