// Command kstatus says how Flux, and everybody else who waits by kstatus, reads objects: JSON objects on standard
// input, a line with the status of each on standard output.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func main() {
	if err := read(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(1)
	}
}

func read(in io.Reader, out io.Writer) error {
	objects := json.NewDecoder(bufio.NewReader(in))
	answers := bufio.NewWriter(out)
	for {
		var text json.RawMessage
		if err := objects.Decode(&text); errors.Is(err, io.EOF) {
			return answers.Flush()
		} else if err != nil {
			return err
		}
		// Not decoded here: a number would become a float, which kstatus takes for no generation.
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(text); err != nil {
			return err
		}
		result, err := status.Compute(object)
		if err != nil {
			return err
		}
		fmt.Fprintln(answers, result.Status)
	}
}
