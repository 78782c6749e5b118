// The gopeer runs one member of a cluster with HashiCorp's own memberlist, so that tests can mix real Go nodes with ours.
//
// It writes one JSON line whenever the live members, as it knows them, change. Its standard input takes "join HOST:PORT"
// lines; the end of the input, or SIGTERM, makes it leave politely and exit.
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// member is one node as the JSON lines tell it.
type member struct {
	Name string `json:"name"`
	Addr string `json:"addr"`
	Port uint16 `json:"port"`
}

// timings are the fields of a tuning file that tests change; the names are memberlist's own.
type timings struct {
	ProbeInterval, ProbeTimeout, GossipInterval, PushPullInterval, GossipToTheDeadTime, TCPTimeout string
}

func main() {
	name := flag.String("name", "", "name of the node")
	bind := flag.String("bind", "127.0.0.1", "address to bind and to advertise")
	port := flag.Int("port", 0, "port, UDP and TCP; 0 takes a free one")
	key := flag.String("key", "", "secret key in hexadecimal, 16 or 32 bytes; empty for none")
	label := flag.String("label", "", "label put before every packet and stream")
	profile := flag.String("profile", "lan", "lan or wan")
	tuning := flag.String("tuning", "", "JSON file of durations that replace the profile's")
	compress := flag.Bool("compress", true, "compress what is sent")
	protocol := flag.Uint("protocol", 2, "protocol version; 1 pads what it encrypts")
	flag.Parse()

	conf := memberlist.DefaultLANConfig()
	if *profile == "wan" {
		conf = memberlist.DefaultWANConfig()
	}
	conf.Name, conf.BindAddr, conf.BindPort, conf.AdvertisePort = *name, *bind, *port, *port
	conf.Label, conf.EnableCompression, conf.ProtocolVersion = *label, *compress, uint8(*protocol)
	secret, err := hex.DecodeString(*key)
	check(err)
	conf.SecretKey = secret
	if *tuning != "" {
		tune(conf, *tuning)
	}
	list, err := memberlist.Create(conf)
	check(err)

	lines := make(chan string)
	go func() {
		input := bufio.NewScanner(os.Stdin)
		for input.Scan() {
			lines <- input.Text()
		}
		close(lines)
	}()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	for last := ""; ; {
		last = tell(list, last)
		select {
		case line, open := <-lines:
			if !open {
				leave(list)
				return
			}
			if target, ok := strings.CutPrefix(line, "join "); ok {
				go func() {
					if _, err := list.Join([]string{target}); err != nil {
						log.Printf("join: %v", err)
					}
				}()
			}
		case <-stop:
			leave(list)
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tell writes the members if they are others than last, and returns what was written last.
func tell(list *memberlist.Memberlist, last string) string {
	members := []member{}
	for _, node := range list.Members() {
		members = append(members, member{node.Name, node.Addr.String(), node.Port})
	}
	sort.Slice(members, func(i, j int) bool { return members[i].Name < members[j].Name })
	line, err := json.Marshal(members)
	check(err)
	if string(line) != last {
		fmt.Println(string(line))
	}
	return string(line)
}

func tune(conf *memberlist.Config, path string) {
	text, err := os.ReadFile(path)
	check(err)
	var t timings
	check(json.Unmarshal(text, &t))
	for target, value := range map[*time.Duration]string{
		&conf.ProbeInterval: t.ProbeInterval, &conf.ProbeTimeout: t.ProbeTimeout,
		&conf.GossipInterval: t.GossipInterval, &conf.PushPullInterval: t.PushPullInterval,
		&conf.GossipToTheDeadTime: t.GossipToTheDeadTime, &conf.TCPTimeout: t.TCPTimeout,
	} {
		if value != "" {
			*target, err = time.ParseDuration(value)
			check(err)
		}
	}
}

func leave(list *memberlist.Memberlist) {
	if err := list.Leave(time.Second); err != nil {
		log.Printf("leave: %v", err)
	}
	check(list.Shutdown())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
