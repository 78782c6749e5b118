// Command controlplane is every program a Kubernetes cluster consists of in one static binary:
// its first argument names the program, the rest are that program's own arguments, as in
// `controlplane kube-apiserver --etcd-servers=...`.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// daemons makes each long-running program of Kubernetes.
var daemons = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kube-proxy":              proxy.NewProxyCommand,
	// A context of our own: the command installs the signal handler itself, and a second one panics.
	"kubelet": func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	// Each program reads os.Args itself and must find its own name first.
	os.Args = os.Args[1:]
	switch name := os.Args[0]; name {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kubectl":
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			kubectlutil.CheckErr(err)
		}
	default:
		daemon, known := daemons[name]
		if !known {
			usage()
		}
		os.Exit(cli.Run(daemon()))
	}
}

// usage says which programs there are and ends the process.
func usage() {
	names := []string{"etcd", "kubectl"}
	for name := range daemons {
		names = append(names, name)
	}
	fmt.Fprintf(os.Stderr, "usage: controlplane PROGRAM [ARGUMENT...], where PROGRAM is one of: %s\n",
		strings.Join(names, ", "))
	os.Exit(2)
}
