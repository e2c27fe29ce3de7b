// Command kube-dns is the DNS server of the lab's clusters: what CoreDNS's kubernetes plugin answers, and nothing else. The lab's
// VPC has no resolver to ask for other names, so no others exist. CoreDNS itself would raise the versions of most modules here, and
// compile the API's client a second time.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// idle is how long a TCP connection may say nothing.
const idle = 10 * time.Second

func main() {
	listen := flag.String("listen", ":53", "address to serve on, by UDP and TCP")
	domain := flag.String("domain", "cluster.local", "the cluster's domain")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, *listen, *domain); err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen, domain string) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	z := zone{domain, factory.Core().V1().Services().Lister(), factory.Discovery().V1().EndpointSlices().Lister()}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	if ctx.Err() != nil {
		return nil
	}
	// Only now: that the port is open is what readiness is told by.
	packets, err := net.ListenPacket("udp", listen)
	if err != nil {
		return err
	}
	connections, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- z.servePackets(packets) }()
	go func() { failed <- z.serveConnections(connections) }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

func (z zone) servePackets(packets net.PacketConn) error {
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := packets.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if answer := z.reply(buffer[:n], 0); answer != nil {
			// Whoever asked may have gone; that is no fault of this side.
			if _, err := packets.WriteTo(answer, from); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
				log.Printf("answering %v: %v", from, err)
			}
		}
	}
}

func (z zone) serveConnections(connections net.Listener) error {
	for {
		connection, err := connections.Accept()
		if err != nil {
			return err
		}
		go z.serveConnection(connection)
	}
}

// serveConnection answers one message after the other, each with its length before it (RFC 1035, 4.2.2).
func (z zone) serveConnection(connection net.Conn) {
	defer connection.Close()
	for {
		if connection.SetDeadline(time.Now().Add(idle)) != nil {
			return
		}
		var length uint16
		if binary.Read(connection, binary.BigEndian, &length) != nil {
			return
		}
		query := make([]byte, length)
		if _, err := io.ReadFull(connection, query); err != nil {
			return
		}
		answer := z.reply(query, 1<<16-1)
		if answer == nil {
			return
		}
		framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)
		if _, err := connection.Write(framed); err != nil {
			return
		}
	}
}
