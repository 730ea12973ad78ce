package main

import (
	"io"
	"log/slog"
	"os"
	"strings"

	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/braid-cni/braid/pkg/conf"
)

// newLog writes to a file, rotated, where path is not empty, and to stderr if asked to. Close releases the file: a plugin that is called
// within another process must not leave it open.
func newLog(path, levelName string, toStderr bool, rotation conf.LogOptions) (*slog.Logger, func() error) {
	options := &slog.HandlerOptions{Level: level(levelName)}
	var handlers []slog.Handler
	closeLog := func() error { return nil }
	if path != "" {
		file := &lumberjack.Logger{
			Filename: path, MaxSize: rotation.MaxSize, MaxAge: rotation.MaxAge, MaxBackups: rotation.MaxBackups, Compress: rotation.Compress,
		}
		handlers = append(handlers, slog.NewTextHandler(orStderr{file}, options))
		closeLog = file.Close
	}
	if toStderr {
		handlers = append(handlers, slog.NewTextHandler(os.Stderr, options))
	}
	return slog.New(slog.NewMultiHandler(handlers...)), closeLog
}

func level(name string) slog.Level {
	var l slog.Level
	if l.UnmarshalText([]byte(strings.ToUpper(name))) != nil {
		return slog.LevelInfo
	}
	return l
}

// orStderr keeps a line that the file does not take, because the disk is full or read-only: the runtime logs stderr.
type orStderr struct{ w io.Writer }

func (o orStderr) Write(line []byte) (int, error) {
	if _, err := o.w.Write(line); err != nil {
		return os.Stderr.Write(line)
	}
	return len(line), nil
}
