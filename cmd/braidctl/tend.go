package main

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"os"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/strictjson"
)

func tendCommand() command {
	return command{
		name: "ipam tend", summary: "share and give back the blocks of this node, for a timer",
		text: `Does once what each operation of Braid does for the node's blocks now and then: shares
those that other nodes ask for, gives idle ones back, and looks whether they are still this node's.
It is for a timer on nodes that may have no traffic for long, of which other nodes could not get the
free addresses else; once a minute is often enough. It runs on the node, beside Braid.

Exits with 0 if all could be done, 2 if not.`,
		setUp: func(f *flag.FlagSet) func(context.Context, io.Writer) (bool, error) {
			open := sourceFlags(f)
			state := f.String("state-dir", conf.DefaultStateDir, "`directory` of Braid's state on this node")
			name := f.String("node-name", "",
				"`name` of the Node object of this machine; by default its hostname")
			return func(ctx context.Context, _ io.Writer) (bool, error) {
				source, err := open()
				if err != nil {
					return false, err
				}
				addresses := &node.Addresses{
					Source: node.Only(source), Name: *name, StateDir: *state,
					Log: slog.New(slog.NewTextHandler(strictjson.PrintableWriter(os.Stderr), nil)),
				}
				return false, addresses.TendNow(ctx)
			}
		},
	}
}
