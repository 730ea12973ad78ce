package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/agent/client"
	"github.com/braid-cni/braid/pkg/hostfile"
)

// maxNotes bounds the notes that are read, in bytes. Clients write half as much.
const maxNotes = 128 << 10

// otherReason counts what is no reason of a client's.
const otherReason = "other"

// TakeNotes returns how often clients noted that they did without the agent, by reason, and removes
// the notes. What was noted is counted once, whoever is killed meanwhile, or not at all.
func TakeNotes(path string) (map[string]int, error) {
	taken := path + ".taken"
	if err := os.Rename(path, taken); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil //nolint:nilnil // nobody noted anything
		}
		return nil, fmt.Errorf("take the notes of clients: %w", err)
	}
	text, err := hostfile.Read(taken, maxNotes)
	if rerr := os.Remove(taken); rerr != nil || err != nil {
		return nil, fmt.Errorf("take the notes of clients: %w", errors.Join(err, rerr))
	}
	counts := map[string]int{}
	for _, reason := range strings.Fields(string(text)) {
		if !slices.Contains(client.Reasons(), client.Reason(reason)) {
			reason = otherReason
		}
		counts[reason]++
	}
	return counts, nil
}
