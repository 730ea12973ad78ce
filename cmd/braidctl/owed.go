package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"time"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/record"
)

func owedCommand() command {
	return command{
		name: "owed", summary: "what could not be removed of pods of this node that are gone",
		text: `Lists attachments of pods that are gone whose plugin refused for ten minutes to remove
them: the plugin is no longer there, or will not have the network's configuration. The runtime's GC
goes on with them, and they leave the list when the plugin has done its part. It is run on the node
and changes nothing.

Exits with 0 if there is nothing, 1 if something is owed, 2 if that could not be found out of some
pod.`,
		setUp: func(f *flag.FlagSet) func(context.Context, io.Writer) (bool, error) {
			o := formatFlag(f, formatTable)
			state := f.String("state-dir", conf.DefaultStateDir, "`directory` of Braid's state on this node")
			return func(_ context.Context, out io.Writer) (bool, error) {
				records, err := record.New(*state).Read()
				items := owedItems(records)
				werr := write(out, *o, items, "POD CONTAINER NETWORK INTERFACE SINCE ERROR", owedItem.rows)
				return len(items) > 0, errors.Join(err, werr)
			}
		},
	}
}

// owedItem is an attachment as it is printed.
type owedItem struct {
	Pod       string    `json:"pod,omitempty"`
	Container string    `json:"container"`
	Network   string    `json:"network"`
	Interface string    `json:"interface"`
	Since     time.Time `json:"since"`
	Error     string    `json:"error"`
}

// owedItems lists what records have as owed.
func owedItems(records []*record.Record) (items []owedItem) {
	for _, rec := range records {
		for _, a := range rec.Owed() {
			item := owedItem{
				Pod: rec.Pod.String(), Container: rec.ContainerID, Network: a.Name, Interface: a.IfName,
			}
			if a.Refusal != nil {
				item.Since, item.Error = a.Refusal.Since, a.Refusal.Text
			}
			items = append(items, item)
		}
	}
	return items
}

func (i owedItem) rows() [][]string {
	return [][]string{
		{i.Pod, i.Container, i.Network, i.Interface, i.Since.Format(time.RFC3339), i.Error},
	}
}
