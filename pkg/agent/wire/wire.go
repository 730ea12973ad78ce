// Package wire is what Braid's client and its agent say to each other over a stream socket.
//
// A call of the CNI protocol goes like this:
//
//	client: hello     all of the call, with the sandbox's network namespace as a descriptor
//	agent:  accepted  the call is queued and nothing was done; or refused, with the reason
//	client: go        from now on the client waits
//	agent:  working   at least every [Pulse], for as long as it lasts
//	agent:  result    what the client prints, and its exit code
//
// Contract:
//   - Until an agent has read "go" it does nothing, so a client that has not sent it may do the
//     work in another way. After it, an agent closes the connection only when it does nothing any
//     more.
//   - A frame is a length, four bytes with the highest first, and that many bytes of JSON, one
//     object. Bytes are strings of base64.
//   - Versions add. Fields and types of frames that are not known are ignored; a verb that is not
//     known, or a call that needs a later version, is refused.
//   - What is read is bounded, and a frame that is none is an error.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Version is that of the protocol here.
const Version = 1

// Where an agent and its clients meet. The directory, of mode 0700, is root's.
const (
	Dir    = "/run/braid/agent"
	Socket = Dir + "/agent.sock"
	// Notes is where clients note, a line each, why they did without the agent.
	Notes = Dir + "/fallbacks"
)

// The types of frames.
const (
	Hello    = "hello"
	Accepted = "accepted"
	Refused  = "refused"
	Go       = "go"
	Working  = "working"
	Result   = "result"
)

// CNI is the verb of a call of the CNI protocol, and the only one by now.
const CNI = "cni"

// The bounds of what is waited for and read.
const (
	// MaxFrame bounds a frame, in bytes. Braid takes 4 MiB of configuration, which is a third more
	// in base64.
	MaxFrame = 8 << 20
	// AcceptWithin is how long a client waits for "accepted".
	AcceptWithin = 250 * time.Millisecond
	// Pulse is how often an agent shows that it is at work, and Silence how long a client waits
	// without such a sign.
	Pulse   = 5 * time.Second
	Silence = 4 * Pulse
)

// Frame is any frame. Each type has some of the fields; the others are zero, and are not sent.
type Frame struct {
	Type string `json:"type"`
	// Version is the sender's, and Oldest the oldest one whose agents do the call as it is meant.
	Version int `json:"version,omitempty"`
	Oldest  int `json:"oldest,omitempty"`
	// Verb is what a hello asks for. Environ are the client's variables, each ended by a zero byte,
	// and Stdin is what it read.
	Verb    string `json:"verb,omitempty"`
	Environ []byte `json:"environ,omitempty"`
	Stdin   []byte `json:"stdin,omitempty"`
	// NetNS is that a descriptor of the sandbox's network namespace comes with the frame.
	NetNS bool `json:"netns,omitempty"`
	// Millis is how long the client waits for the result.
	Millis int `json:"millis,omitempty"`
	// Reason is why a call is refused.
	Reason string `json:"reason,omitempty"`
	// Stdout and Stderr are what the client prints, and Exit is its exit code.
	Stdout []byte `json:"stdout,omitempty"`
	Stderr []byte `json:"stderr,omitempty"`
	Exit   int    `json:"exit,omitempty"`
}

// Append appends the frame as it is sent.
func Append(b []byte, f *Frame) []byte {
	text, err := json.Marshal(f)
	if err != nil {
		panic(err) // no field of a frame has a value that JSON has not
	}
	return append(binary.BigEndian.AppendUint32(b, uint32(len(text))), text...)
}

// Read reads a frame. The error is io.EOF if the peer has closed the connection between frames.
func Read(r io.Reader) (*Frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > MaxFrame {
		return nil, fmt.Errorf("a frame of %d bytes, at most %d are allowed", size, MaxFrame)
	}
	text, err := readN(r, int(size))
	if err != nil {
		return nil, err
	}
	f := &Frame{}
	if err := json.Unmarshal(text, f); err != nil {
		return nil, fmt.Errorf("read a frame: %w", err)
	}
	return f, nil
}

// readN reads n bytes. Memory grows with what has come, whatever length the peer has announced.
func readN(r io.Reader, n int) ([]byte, error) {
	var b []byte
	for len(b) < n {
		part := make([]byte, min(n-len(b), max(4<<10, len(b))))
		if _, err := io.ReadFull(r, part); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if b == nil {
			b = part
		} else {
			b = append(b, part...)
		}
	}
	return b, nil
}

// Environ joins variables, "KEY=VALUE" each, for a frame.
func Environ(variables []string) []byte {
	size := 0
	for _, v := range variables {
		size += len(v) + 1
	}
	b := make([]byte, 0, size)
	for _, v := range variables {
		b = append(append(b, v...), 0)
	}
	return b
}

// Variables is the inverse of Environ.
func Variables(environ []byte) (variables []string) {
	start := 0
	for i, c := range environ {
		if c == 0 {
			variables = append(variables, string(environ[start:i]))
			start = i + 1
		}
	}
	return variables
}
