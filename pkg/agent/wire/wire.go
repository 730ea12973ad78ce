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
//   - Until an agent has read "go" it does nothing, so a client that has not sent it may do the work
//     in another way. After it, an agent closes the connection only when it does nothing any more.
//   - A frame is a length, four bytes with the highest first, and that many bytes of JSON: one
//     object, whose values are strings, whole numbers, booleans or null, in every version to come.
//     Bytes are strings of base64.
//   - Versions add. Fields and types of frames that are not known are ignored; a verb that is not
//     known, or a call that needs a later version, is refused.
//   - What is read is bounded, and a frame that is none is an error.
//
// The package needs little of the standard library, since a client starts for each call.
package wire

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"strconv"
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
	Type string
	// Version is the sender's, and Oldest the oldest one whose agents do the call as it is meant.
	Version, Oldest int
	// Verb is what a hello asks for. Environ are the client's variables, each ended by a zero byte,
	// and Stdin is what it read.
	Verb           string
	Environ, Stdin []byte
	// NetNS is that a descriptor of the sandbox's network namespace comes with the frame.
	NetNS bool
	// Millis is how long the client waits for the result.
	Millis int
	// Reason is why a call is refused.
	Reason string
	// Stdout and Stderr are what the client prints, and Exit is its exit code.
	Stdout, Stderr []byte
	Exit           int
}

// Append appends the frame as it is sent.
func Append(b []byte, f *Frame) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = append(b, `{"type":"`...)
	b = append(b, f.Type...)
	b = append(b, '"')
	b = appendInt(b, "version", f.Version)
	b = appendInt(b, "oldest", f.Oldest)
	b = appendText(b, "verb", f.Verb)
	b = appendBytes(b, "environ", f.Environ)
	b = appendBytes(b, "stdin", f.Stdin)
	if f.NetNS {
		b = append(b, `,"netns":true`...)
	}
	b = appendInt(b, "millis", f.Millis)
	b = appendText(b, "reason", f.Reason)
	b = appendBytes(b, "stdout", f.Stdout)
	b = appendBytes(b, "stderr", f.Stderr)
	b = appendInt(b, "exit", f.Exit)
	b = append(b, '}')
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4)) //nolint:gosec // Read refuses what is too long
	return b
}

func appendKey(b []byte, key string) []byte {
	b = append(b, ',', '"')
	b = append(b, key...)
	return append(b, '"', ':')
}

func appendInt(b []byte, key string, value int) []byte {
	if value == 0 {
		return b
	}
	return strconv.AppendInt(appendKey(b, key), int64(value), 10)
}

func appendBytes(b []byte, key string, value []byte) []byte {
	if len(value) == 0 {
		return b
	}
	b = append(appendKey(b, key), '"')
	return append(base64.StdEncoding.AppendEncode(b, value), '"')
}

func appendText(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return appendString(appendKey(b, key), value)
}

// Read reads a frame. The error is io.EOF if the peer has closed the connection between frames.
func Read(r io.Reader) (*Frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > MaxFrame {
		return nil, errors.New("a frame of " + strconv.FormatUint(uint64(size), 10) + " bytes, at most " + strconv.Itoa(MaxFrame) + " are allowed")
	}
	text, err := readN(r, int(size))
	if err != nil {
		return nil, err
	}
	return decode(text)
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
