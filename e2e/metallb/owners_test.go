// Asks MetalLB itself which node answers for an address. The election is a part of the speaker's main package, so this
// file is laid beside the speaker's sources and built with them: `go test -c ./speaker`.
//
// It reads questions from standard input, JSON objects as {"nodes": ["a", "b"], "address": "192.0.2.1"}, and prints one
// line for each: the names of all nodes that would announce the address, separated by blanks.

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/go-kit/log"
	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"go.universe.tf/metallb/internal/config"
	"go.universe.tf/metallb/internal/speakerlist"
)

type question struct {
	Nodes   []string `json:"nodes"`
	Address net.IP   `json:"address"`
}

// gossip is a membership list on which every node is alive.
type gossip map[string]bool

func (g gossip) UsableSpeakers() speakerlist.SpeakerListInfo {
	return speakerlist.SpeakerListInfo{Nodes: g}
}

func (gossip) Rejoin() {}

func TestMain(*testing.M) {
	questions := json.NewDecoder(os.Stdin)
	for {
		var q question
		if err := questions.Decode(&q); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(strings.Join(announcers(q), " "))
	}
}

// announcers asks the speaker of every node whether it would announce the address.
func announcers(q question) []string {
	all := gossip{}
	nodes := map[string]*v1.Node{}
	for _, name := range q.Nodes {
		all[name] = true
		nodes[name] = &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	}
	pool := &config.Pool{L2Advertisements: []*config.L2Advertisement{{Nodes: all, AllInterfaces: true}}}
	ready := true
	endpoints := []discovery.EndpointSlice{{
		Endpoints: []discovery.Endpoint{{Conditions: discovery.EndpointConditions{Ready: &ready}}},
	}}
	var announcing []string
	for _, name := range q.Nodes {
		speaker := &layer2Controller{myNode: name, sList: all}
		refusal := speaker.ShouldAnnounce(
			log.NewNopLogger(), "default/any", []net.IP{q.Address}, pool, &v1.Service{}, endpoints, nodes)
		if refusal == "" {
			announcing = append(announcing, name)
		}
	}
	return announcing
}
