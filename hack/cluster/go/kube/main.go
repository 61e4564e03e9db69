// Command kube is etcd, the Kubernetes control plane, a node and kubectl in one binary.
//
// One binary shares the code that its parts have in common: 140 MB instead of 600, and one link instead of seven. The part is chosen
// by the first argument, or by the name it was started under, so that a symbolic link named kubectl is kubectl.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

func main() {
	if filepath.Base(os.Args[0]) == "kubectl" {
		runKubectl()
		return
	}
	servers := map[string]func() *cobra.Command{
		"apiserver":          apiserver.NewAPIServerCommand,
		"controller-manager": controllers.NewControllerManagerCommand,
		"proxy":              proxy.NewProxyCommand,
		"scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
		"kubelet":            func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
	}
	part := ""
	if len(os.Args) > 1 {
		part = os.Args[1]
	}
	switch {
	case part == "etcd":
		etcdmain.Main(os.Args[1:])
	case part == "kubectl":
		os.Args = os.Args[1:]
		runKubectl()
	case servers[part] != nil:
		os.Args = append([]string{"kube-" + part}, os.Args[2:]...)
		os.Exit(cli.Run(servers[part]()))
	default:
		fmt.Fprintln(os.Stderr, "usage: kube apiserver|controller-manager|etcd|kubectl|kubelet|proxy|scheduler [flags]")
		os.Exit(2)
	}
}

func runKubectl() {
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}
