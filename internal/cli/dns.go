package cli

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/agentcage/agentcage/internal/proxy/ca"
)

func newDNS() *cobra.Command {
	var f listenFlags
	var addr string
	c := &cobra.Command{
		Use:   "dns -c FILE",
		Short: "Run the gateway's DNS server in the foreground",
		Long: `DNS runs the half of the gateway that answers the cage's queries. No query ever
leaves it: a listed name gets the addresses of its entry, which the server
resolves on its own schedule, and every other name gets 198.51.100.1, where the
gateway answers with the reason.

SIGHUP and a changed config file reload; SIGTERM stops.`,
		Args: exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			// The DNS half signs nothing, and an authority that lives in
			// memory costs less than a second way to build a gateway.
			h, err := f.start(c, true, func() (*ca.Authority, error) { return ca.New("dns") })
			if err != nil {
				return err
			}
			if err := serveDNS(h, addr); err != nil {
				return errors.Join(err, h.shutdown())
			}
			return h.run(c.Context(), f.ready)
		},
	}
	f.register(c)
	c.Flags().StringVar(&addr, "listen", "127.0.0.1:53", "`ADDR` to listen on, UDP and TCP")
	return c
}

func serveDNS(h *half, addr string) error {
	packets, stream, err := listenDNS(addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "agentcage: DNS on %s\n", stream.Addr())
	h.gw.ServeDNS([]net.PacketConn{packets}, []net.Listener{stream})
	return nil
}

// chosenPorts is how many ports are tried when any will do.
const chosenPorts = 16

// listenDNS listens on one port for UDP and TCP. A port of 0 is chosen once and
// taken for both; somebody else may have the other half of it.
func listenDNS(addr string) (net.PacketConn, net.Listener, error) {
	for try := 1; ; try++ {
		packets, err := net.ListenPacket("udp", addr)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot listen on %s: %w", addr, err)
		}
		chosen := packets.LocalAddr().String()
		stream, err := listen(chosen)
		if err == nil {
			return packets, stream, nil
		}
		err = errors.Join(err, packets.Close())
		if chosen == addr || try == chosenPorts {
			return nil, nil, err
		}
	}
}
