package file

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Boot knows when this machine was started. A nil field asks the kernel, each time.
type Boot struct {
	// ID is a text that no other boot has.
	ID func() (string, error)
	// Time is a time by which the boot had surely not begun: what is older is from before it. The zero
	// Time if there is none.
	Time func() time.Time
}

// Kernel returns a Boot that asks the kernel once.
func Kernel() Boot { return Boot{ID: sync.OnceValues(bootID), Time: bootTime} }

// early is how long after its start a machine has mounted /run.
const early = time.Minute

func (b Boot) id() (string, error) {
	ask := b.ID
	if ask == nil {
		ask = bootID
	}
	id, err := ask()
	if err == nil && (id == "" || strings.Trim(id, "0123456789abcdef-") != "") {
		err = fmt.Errorf("boot ID %.40q is not a UUID", id)
	}
	return id, err
}

func (b Boot) time() time.Time {
	if b.Time == nil {
		return bootTime()
	}
	return b.Time()
}

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(data)), err
}

// bootTime returns the earlier one of the kernel's boot time, which moves when the clock is set,
// and of the time when /run was made, which was read from the clock as it was then. A /run that was
// made later is not the machine's but a container's, and then nothing is certain.
func bootTime() time.Time {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}
	}
	_, rest, _ := strings.Cut(string(data), "\nbtime ")
	line, _, _ := strings.Cut(rest, "\n")
	seconds, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		return time.Time{}
	}
	booted := time.Unix(seconds, 0)
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, "/run", 0, unix.STATX_BTIME, &st) != nil ||
		st.Mask&unix.STATX_BTIME == 0 {
		return booted
	}
	made := time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
	switch {
	case made.After(booted.Add(early)):
		return time.Time{}
	case made.Before(booted):
		return made
	}
	return booted
}
