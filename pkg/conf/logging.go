package conf

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/braid-cni/braid/pkg/loglevel"
	"github.com/braid-cni/braid/pkg/strictjson"
)

const (
	allowedLevel = "give debug, info, warn or error; verbose means info, panic means error, trace " +
		"means debug"
	allowedCount = "give a whole number, 0 or greater"
)

func (n *Node) readLogging(o *object) {
	n.LogFile = field(o, "logFile", DefaultLogFile, allowedPath, optional(logFile))
	written := strictjson.Text(o.raw("logFile"))
	if o.err == nil && written != "" && !filepath.IsAbs(written) {
		o.odd("logFile", "give an absolute path", "%s is relative, and taken for %s",
			strictjson.Quote(written), strictjson.Quote(n.LogFile))
	}
	n.readLevel(o)
	n.LogToStderr = field(o, "logToStderr", false, allowedBool, strictjson.Bool)
	l := o.inner("logOptions")
	l.anyCase = true
	n.LogOptions = LogOptions{
		MaxAge:     l.count("maxAge", DefaultLogOptions().MaxAge),
		MaxSize:    l.count("maxSize", DefaultLogOptions().MaxSize),
		MaxBackups: l.count("maxBackups", DefaultLogOptions().MaxBackups),
		Compress:   field(l, "compress", DefaultLogOptions().Compress, allowedBool, strictjson.Bool),
	}
	o.err, o.warnings = l.err, append(o.warnings, l.warnings...)
}

// logFile returns the path of a file. A relative one is beneath DefaultLogDir: what Multus resolves
// it against is wherever the runtime was started.
func logFile(raw json.RawMessage) (string, error) {
	path, err := strictjson.String(raw)
	if err == nil && !filepath.IsAbs(path) {
		raw = strictjson.Marshal(DefaultLogDir + filepath.Clean("/"+path))
	}
	return ownDir(raw)
}

// readLevel reads the level of the log. One that is not known keeps nobody from starting pods.
func (n *Node) readLevel(o *object) {
	written := field(o, "logLevel", DefaultLogLevel, allowedLevel, strictjson.String)
	level, err := loglevel.Name(written)
	switch {
	case o.err != nil:
	case err != nil:
		level = DefaultLogLevel
		o.odd("logLevel", allowedLevel, "%w, and info is taken", err)
	case written != "" && !strings.EqualFold(level, written):
		o.odd("logLevel", "write "+level, "%s is taken for %s", strictjson.Quote(written), level)
	}
	n.LogLevel = level
}

// count returns a number of things: the default where it is negative.
func (o *object) count(key string, def int) int {
	n := field(o, key, def, allowedCount, whole)
	if n < 0 {
		o.odd(key, allowedCount, "%d is negative, and %d is taken", n, def)
		return def
	}
	return n
}

func whole(raw json.RawMessage) (int, error) {
	n, err := strconv.ParseInt(string(raw), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s is no whole number", strictjson.Quote(string(raw)))
	}
	return int(n), nil
}
