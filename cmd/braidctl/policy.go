package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"

	"github.com/braid-cni/braid/pkg/lint"
	"github.com/braid-cni/braid/pkg/strictjson"
)

const policyText = `Lists what the policy of the nodes' configuration does not allow the NADs and
pods of files, or with -A of a whole cluster: what is refused, and what is only audited and would be
refused were the policy enforced. Each line reads

  refused|audited: object: field: what is not allowed: rule

and at the end is, for each namespace, what an operator would have to write to allow all of it. To
get from audit to enforcement: allow what is meant, have the owners change the rest, and set
"policyDefault": "enforce" when nothing is left. It changes nothing.

A warning, which is no violation, is of two namespaces that may give one address twice, as their
networks are on one link and have addresses of which each namespace alone knows.

JSON is a list with an object for each line, in which "allow" is what would have to be written.

Exits with 0 if all is allowed, warnings or not, 1 if something is not, 2 if that could not be found
out.`

func policyCommand() command {
	return command{
		name: "policy report", operands: "FILE...|-A",
		summary: "what the policy does not allow, and the line that would",
		text:    policyText,
		setUp: func(f *flag.FlagSet) func(context.Context, io.Writer) (bool, error) {
			judge, o := judging(f), formatFlag(f, formatText)
			return func(ctx context.Context, out io.Writer) (bool, error) {
				return judge(ctx, func(in *lint.Input) (bool, error) {
					violations, err := lint.Report(ctx, *in)
					if err != nil {
						return false, err
					}
					found := slices.ContainsFunc(violations, func(v lint.Violation) bool {
						return v.Effect != lint.Warn
					})
					if *o == formatJSON {
						return found, writeJSON(out, violations)
					}
					return found, printPolicy(out, violations)
				})
			}
		},
	}
}

// printPolicy prints the violations, and once each what would allow them.
func printPolicy(out io.Writer, violations []lint.Violation) error {
	var remedies []string
	told := map[string]bool{}
	for _, v := range violations {
		if _, err := fmt.Fprintln(out, v); err != nil {
			return err
		}
		if told[v.Allow] {
			continue
		}
		told[v.Allow] = true
		if v.Effect == lint.Warn {
			remedies = append(remedies, "to keep them apart, "+v.Allow)
		} else {
			remedies = append(remedies, "to allow all of that, "+v.Allow)
		}
	}
	for _, r := range remedies {
		if _, err := fmt.Fprintln(out, strictjson.Printable(r)); err != nil {
			return err
		}
	}
	return nil
}
