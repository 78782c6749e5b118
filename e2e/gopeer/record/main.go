// Record runs small clusters of HashiCorp's memberlist on the loopback and writes the first packet and the first stream
// of every kind they send into a directory: the golden frames of speaker/members.
//
//	go run ./record ../../speaker/members/inputs
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// kinds names message types by their first byte.
var kinds = map[byte]string{
	0: "ping", 1: "indirect-ping", 2: "ack", 3: "suspect", 4: "alive", 5: "dead", 6: "push-pull",
	7: "compound", 9: "compress", 10: "encrypt", 11: "nack", 12: "crc", 13: "err", 244: "label",
}

// recorder keeps the first frame of every kind of one scenario.
type recorder struct {
	sync.Mutex
	dir, scenario string
	seen          map[string]bool
}

func (r *recorder) keep(way string, frame []byte) {
	r.Lock()
	defer r.Unlock()
	kind, known := kinds[frame[0]]
	if r.scenario[:3] == "key" && way == "packet" {
		kind, known = "sealed", true // the first byte is the version of the encryption
	}
	// What stands behind a checksum is told apart too.
	if kind == "crc" {
		kind = "crc-" + kinds[frame[5]]
	}
	name := fmt.Sprintf("%s-%s-%s.bin", r.scenario, way, kind)
	if !known || r.seen[name] {
		return
	}
	r.seen[name] = true
	check(os.WriteFile(filepath.Join(r.dir, name), frame, 0o644))
}

// tap is a transport that shows everything sent to the recorder.
type tap struct {
	*memberlist.NetTransport
	to   *recorder
	mute bool // swallow every packet and stream: the node looks dead
}

func (t *tap) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if t.mute {
		return time.Now(), nil
	}
	t.to.keep("packet", b)
	return t.NetTransport.WriteToAddress(b, a)
}

func (t *tap) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	conn, err := t.NetTransport.DialAddressTimeout(a, d)
	if err != nil || t.mute {
		return nil, io.ErrClosedPipe
	}
	return &tapped{conn, t.to}, nil
}

type tapped struct {
	net.Conn
	to *recorder
}

func (t *tapped) Write(b []byte) (int, error) {
	t.to.keep("stream", b)
	return t.Conn.Write(b)
}

func node(r *recorder, name string, change func(*memberlist.Config)) (*memberlist.Memberlist, *tap) {
	conf := memberlist.DefaultLANConfig()
	conf.Name, conf.BindAddr, conf.BindPort, conf.AdvertisePort = name, "127.0.0.1", 0, 0
	conf.ProbeInterval, conf.ProbeTimeout = 100*time.Millisecond, 40*time.Millisecond
	conf.GossipInterval, conf.PushPullInterval = 50*time.Millisecond, time.Second
	conf.LogOutput = io.Discard
	change(conf)
	inner, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{"127.0.0.1"}, Logger: log.New(io.Discard, "", 0),
	})
	check(err)
	t := &tap{NetTransport: inner, to: r}
	conf.Transport = t
	conf.BindPort, conf.AdvertisePort = inner.GetAutoBindPort(), inner.GetAutoBindPort()
	list, err := memberlist.Create(conf)
	check(err)
	return list, t
}

func main() {
	key := []byte("0123456789abcdef0123456789abcdef")
	for scenario, change := range map[string]func(*memberlist.Config){
		"plain":      func(c *memberlist.Config) { c.EnableCompression = false },
		"compressed": func(*memberlist.Config) {},
		"key16":      func(c *memberlist.Config) { c.EnableCompression = false; c.SecretKey = key[:16] },
		"key32":      func(c *memberlist.Config) { c.SecretKey = key },
		"keypad":     func(c *memberlist.Config) { c.SecretKey = key; c.ProtocolVersion = 1 },
		"labelled":   func(c *memberlist.Config) { c.EnableCompression = false; c.Label = "blue" },
		"keylabel":   func(c *memberlist.Config) { c.SecretKey = key; c.Label = "blue" },
	} {
		r := &recorder{dir: os.Args[1], scenario: scenario, seen: map[string]bool{}}
		var lists []*memberlist.Memberlist
		var last *tap
		for _, name := range []string{"a", "b", "c", "d"} {
			list, t := node(r, name, change)
			if len(lists) > 0 {
				_, err := list.Join([]string{lists[0].LocalNode().Address()})
				check(err)
			}
			lists, last = append(lists, list), t
		}
		time.Sleep(2 * time.Second)
		last.mute = true // probed in vain, asked about, suspected, declared dead
		time.Sleep(4 * time.Second)
		check(lists[1].Leave(time.Second))
		time.Sleep(time.Second)
		for _, list := range lists {
			check(list.Shutdown())
		}
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
