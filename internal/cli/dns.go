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
			h, err := f.start(c, func() (*ca.Authority, error) { return ca.New("dns") })
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
	packets, err := net.ListenPacket("udp", addr)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", addr, err)
	}
	// A port of 0 is chosen once and then taken for both.
	stream, err := listen(packets.LocalAddr().String())
	if err != nil {
		return errors.Join(err, packets.Close())
	}
	fmt.Fprintf(os.Stderr, "agentcage: DNS on %s\n", stream.Addr())
	h.gw.ServeDNS([]net.PacketConn{packets}, []net.Listener{stream})
	return nil
}
