package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/braid-cni/braid/pkg/failure"
)

// checkTime bounds how long a plugin may take to say its versions.
const checkTime = 10 * time.Second

// CheckPlugin returns a Check that runs a CNI plugin's VERSION, as CRI-O does with each that it
// sees: what came from an image that was copied in part, or is for another architecture, is not
// installed. name is what the plugin is called by.
func CheckPlugin(name string) func(ctx context.Context, temporary string) error {
	return func(ctx context.Context, temporary string) error {
		ctx, cancel := context.WithTimeout(ctx, checkTime)
		defer cancel()
		cmd := exec.CommandContext(ctx, temporary) //nolint:gosec // it was just written
		cmd.Args = []string{name}
		cmd.Env = append(os.Environ(), "CNI_COMMAND=VERSION")
		cmd.Stdin = bytes.NewBufferString(`{"cniVersion":"1.0.0"}`)
		out, err := cmd.Output()
		if err == nil {
			err = says(out)
		}
		if err != nil {
			return &failure.Error{
				Reason: failure.StateFailed, Plugin: name, Err: fmt.Errorf("run its VERSION: %w", err),
				Fix: "see that the image was pulled as a whole, is for this architecture, and that the " +
					"directory is not mounted noexec",
			}
		}
		return nil
	}
}

// says returns an error if a plugin's answer to VERSION is none, or names no version.
func says(out []byte) error {
	var answer struct {
		SupportedVersions []string `json:"supportedVersions"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return err
	}
	if len(answer.SupportedVersions) == 0 {
		return errors.New("it supports none")
	}
	return nil
}
