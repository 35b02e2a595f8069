package run

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// errNoMemoryCgroup is the usual first stumble on a Raspberry Pi, whose firmware switches the memory cgroup off.
var errNoMemoryCgroup = errors.New("add cgroup_enable=memory to the kernel's command line and reboot " +
	"(on a Raspberry Pi: /boot/firmware/cmdline.txt): this kernel runs without the memory cgroup, and containers need it")

// preflight finds out, before anything is made, what would only fail much later and with less to go by.
// root is "/" but in tests.
func preflight(root string) error {
	if !memoryCgroup(root) {
		return errNoMemoryCgroup
	}
	return nil
}

// memoryCgroup looks into both layouts: version 2 lists its controllers, version 1 all that the kernel knows.
func memoryCgroup(root string) bool {
	if b, err := os.ReadFile(filepath.Join(root, "sys/fs/cgroup/cgroup.controllers")); err == nil && slices.Contains(strings.Fields(string(b)), "memory") {
		return true
	}
	f, err := os.Open(filepath.Join(root, "proc/cgroups"))
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// subsys_name hierarchy num_cgroups enabled
		if v := strings.Fields(lines.Text()); len(v) == 4 && v[0] == "memory" {
			return v[3] == "1"
		}
	}
	return false
}
