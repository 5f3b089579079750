package dial

import (
	"net/netip"
	"testing"
)

func TestClassify(t *testing.T) {
	for in, want := range map[string]Class{
		// Controls: global addresses, also beside the special blocks.
		"93.184.215.14": Global, "1.1.1.1": Global, "9.255.255.255": Global, "11.0.0.0": Global,
		"100.63.255.255": Global, "100.128.0.0": Global, "126.255.255.255": Global, "128.0.0.0": Global,
		"169.253.255.255": Global, "169.255.0.0": Global, "172.15.255.255": Global, "172.32.0.0": Global,
		"192.0.1.0": Global, "192.167.255.255": Global, "192.169.0.0": Global, "198.17.255.255": Global,
		"198.20.0.0": Global, "223.255.255.255": Global, "168.63.129.15": Global,
		"2606:4700::1111": Global, "2a00:1450:4001::8a": Global, "2620:fe::fe": Global, "2400:cb00::1": Global,
		"::ffff:1.1.1.1": Global,

		"0.0.0.0": Unspecified, "0.0.0.1": Reserved, "0.255.255.255": Reserved,
		"10.0.0.0": Private, "10.255.255.255": Private, "172.16.0.1": Private, "172.31.255.255": Private,
		"192.168.1.1": Private, "100.64.0.0": SharedCGN, "100.100.100.200": SharedCGN, "100.127.255.255": SharedCGN,
		"127.0.0.1": Loopback, "127.255.255.255": Loopback, "169.254.169.254": LinkLocal, "169.254.170.2": LinkLocal,
		"168.63.129.16": LinkLocal, "192.0.0.1": Protocol, "192.0.0.192": Protocol, "192.0.2.1": Documentation,
		"192.31.196.1": Protocol, "192.52.193.1": Protocol, "192.88.99.1": Protocol, "192.175.48.1": Protocol,
		"198.18.0.1": Benchmarking, "198.19.255.255": Benchmarking, "198.51.100.1": Documentation,
		"203.0.113.255": Documentation, "224.0.0.1": Multicast, "239.255.255.255": Multicast,
		"240.0.0.1": Reserved, "255.255.255.254": Reserved, "255.255.255.255": Broadcast,

		"::": Unspecified, "::1": Loopback, "::2": Reserved,
		"::ffff:127.0.0.1": Loopback, "::ffff:10.0.0.1": Private, "::ffff:169.254.169.254": LinkLocal,
		"::127.0.0.1": Reserved, "::10.1.2.3": Reserved, "::8.8.8.8": Reserved,
		"::ffff:0:127.0.0.1": Loopback, "::ffff:0:8.8.8.8": Protocol,
		"64:ff9b::8.8.8.8": Protocol, "64:ff9b::127.0.0.1": Loopback, "64:ff9b::169.254.169.254": LinkLocal,
		"64:ff9b:1::8.8.8.8": Unspecified, "64:ff9b:1::10.0.0.1": Unspecified, "64:ff9b:1:a00:0:100::": Unspecified,
		"64:ff9b:1:808:8:800:808:808": Protocol, "64:ff9b:1:7f00:0:100:808:808": Loopback,
		"100::1": Discard, "100:0:0:1::1": Discard, "100:0:0:2::1": Reserved,
		"2001:0:4136:e378:8000:63bf:3fff:fdd2": Protocol, // RFC 4380 example, client 192.0.2.45
		"2001:0:808:808:0:0:f5ff:fffe":         Private,  // client 10.0.0.1, inverted
		"2001:0:7f00:1:0:0:f7f7:f7f7":          Loopback, // server 127.0.0.1
		"2001:2::1":                            Benchmarking, "2001:10::1": Protocol, "2001:20::1": Protocol, "2001:1::1": Protocol,
		"2001:db8::1": Documentation, "3fff::1": Documentation, "3fff:fff::1": Documentation, "3fff:1000::1": Global,
		"3ffe::1": Reserved, "2002:808:808::1": Protocol, "2002:7f00:1::": Loopback, "2002:a9fe:a9fe::1": LinkLocal,
		"2620:4f:8000::1": Protocol, "5f00::1": Protocol, "4000::1": Reserved, "1000::1": Reserved,
		"fc00::1": Private, "fdff::1": Private, "fd00:ec2::254": LinkLocal, "fe80::1": LinkLocal, "fe80::1%eth0": LinkLocal,
		"febf::1": LinkLocal, "fec0::1": Private, "ff02::1": Multicast, "ff0e::1": Multicast,
		"2606:4700::5efe:10.0.0.1": Private, "2606:4700::200:5efe:127.0.0.1": Loopback, "2606:4700::5efe:8.8.8.8": Global,
	} {
		if got := Classify(netip.MustParseAddr(in)); got != want {
			t.Errorf("Classify(%s) = %v, want %v", in, got, want)
		}
	}
	if Classify(netip.Addr{}) != Invalid || Class(200).String() != "invalid" || Global.String() != "global" {
		t.Error("the zero address is not invalid")
	}
}

// FuzzClassify: an address that any mechanism reads as a special IPv4 address
// is never global, and neither is what the standard library calls special.
func FuzzClassify(f *testing.F) {
	f.Add([]byte{127, 0, 0, 1})
	f.Add(netip.MustParseAddr("64:ff9b::a00:1").AsSlice())
	f.Add(netip.MustParseAddr("2002:7f00:1::").AsSlice())
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, ok := netip.AddrFromSlice(raw)
		if !ok {
			return
		}
		if Classify(a) != Global {
			return
		}
		if !a.IsGlobalUnicast() || a.IsPrivate() {
			t.Errorf("%v is global", a)
		}
		if a.Is4() {
			m := netip.AddrFrom16(a.As16())
			if Classify(m) != Global {
				t.Errorf("%v is global and %v is not", a, m)
			}
		}
		for _, in := range embedded(a) {
			if Classify(in) != Global {
				t.Errorf("%v holds %v and is global", a, in)
			}
		}
	})
}
