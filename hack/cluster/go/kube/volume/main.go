// Command volume makes and removes the folder of one volume: what local-path-provisioner otherwise does with a shell in a busybox image,
// which could only come from a registry.
//
// Usage: volume -p PATH -a create|delete [-s BYTES] [-m MODE], the arguments that local-path-provisioner gives its setup and teardown commands.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	path := flag.String("p", "", "folder of the volume")
	action := flag.String("a", "", "create or delete")
	_ = flag.String("s", "", "size in bytes, not enforced")
	_ = flag.String("m", "", "volume mode, always Filesystem")
	flag.Parse()
	if err := run(*action, *path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(action, path string) error {
	if path == "" {
		return fmt.Errorf("volume: the option -p is missing")
	}
	switch action {
	case "create":
		if err := os.MkdirAll(path, 0o777); err != nil {
			return err
		}
		return os.Chmod(path, 0o777) // against the umask: pods that do not run as root write here
	case "delete":
		return os.RemoveAll(path)
	default:
		return fmt.Errorf("volume: the option -a is %q, not create or delete", action)
	}
}
