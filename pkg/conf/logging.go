package conf

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/braid-cni/braid/pkg/conf/strictjson"
)

const (
	allowedLevel = "give debug, info, warn or error; verbose means info, panic means error"
	allowedCount = "give a whole number, 0 or greater"
)

func (c *Config) loadLogging(o *object) {
	c.LogFile = field(o, "logFile", DefaultLogFile, allowedPath, optional(ownDir))
	c.LogLevel = field(o, "logLevel", DefaultLogLevel, allowedLevel, logLevel)
	c.LogToStderr = field(o, "logToStderr", false, allowedBool, strictjson.Bool)
	l := o.inner("logOptions")
	l.anyCase = true
	c.LogOptions = LogOptions{
		MaxAge:     field(l, "maxAge", DefaultLogOptions().MaxAge, allowedCount, count),
		MaxSize:    field(l, "maxSize", DefaultLogOptions().MaxSize, allowedCount, count),
		MaxBackups: field(l, "maxBackups", DefaultLogOptions().MaxBackups, allowedCount, count),
		Compress:   field(l, "compress", DefaultLogOptions().Compress, allowedBool, strictjson.Bool),
	}
	o.err = l.err
}

func logLevel(raw json.RawMessage) (string, error) {
	text, err := strictjson.String(raw)
	if err != nil {
		return "", err
	}
	return LogLevel(text)
}

// LogLevel gives Config's name of a level. It understands those of Multus: its verbose is what others call info, and its panic, which logs
// next to nothing, would hide errors.
func LogLevel(text string) (string, error) {
	switch level := strings.ToLower(text); level {
	case "debug", "info", "warn", "error":
		return level, nil
	case "verbose", "":
		return "info", nil
	case "warning":
		return "warn", nil
	case "panic":
		return "error", nil
	}
	return "", fmt.Errorf("%s is no level", strictjson.Quote(text))
}

func count(raw json.RawMessage) (int, error) {
	n, err := strconv.ParseUint(string(raw), 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%s is no whole number", strictjson.Quote(string(raw)))
	}
	return int(n), nil
}
