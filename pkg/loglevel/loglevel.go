// Package loglevel knows the names of log levels: those of Multus, and what they are to slog.
package loglevel

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// Default is the level that is taken where none is named.
const Default = "info"

// Name returns Braid's name of a level: debug, info, warn or error. It understands those of Multus:
// its verbose is what others call info, and its panic, which logs next to nothing, would hide
// errors.
func Name(text string) (string, error) {
	switch level := strings.ToLower(text); level {
	case "debug", "info", "warn", "error":
		return level, nil
	case "trace":
		return "debug", nil
	case "verbose", "":
		return "info", nil
	case "warning":
		return "warn", nil
	case "panic":
		return "error", nil
	}
	return "", fmt.Errorf("%s is no level", strictjson.Quote(text))
}

// Level returns the level of any name that Name understands, and that of Default for others.
func Level(text string) slog.Level {
	name, err := Name(text)
	if err != nil {
		name = Default
	}
	var l slog.Level
	if l.UnmarshalText([]byte(strings.ToUpper(name))) != nil {
		return slog.LevelInfo
	}
	return l
}
