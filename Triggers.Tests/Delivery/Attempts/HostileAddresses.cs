namespace Triggers.Tests.Delivery.Attempts;

/// <summary>Addresses by which somebody might try to reach the network that the service runs in, and answers of their DNS.</summary>
internal static class HostileAddresses
{
    /// <summary>Addresses, as a subscriber gives them. None may be sent to, whoever notices.</summary>
    public static readonly string[] Urls =
    [
        // This machine, its network, and the inside of clouds.
        "http://127.0.0.1/", "http://127.0.0.1:8080/", "http://127.1.2.3/", "http://127.255.255.254/", "http://localhost/",
        "http://LOCALHOST/", "http://localhost./", "http://0.0.0.0/", "http://0.1.2.3/", "http://10.0.0.1/", "http://10.255.255.255/",
        "http://100.64.0.1/", "http://100.100.100.200/latest/meta-data", "http://100.127.255.255/",
        "http://169.254.169.254/latest/meta-data/", "http://169.254.169.253/", "http://169.254.170.2/v2/credentials", "http://169.254.0.1/",
        "http://172.16.0.1/", "http://172.31.255.254/", "http://192.168.0.1/", "http://192.168.255.255/", "http://168.63.129.16/machine",
        // The other special ranges of IPv4.
        "http://192.0.0.1/", "http://192.0.0.170/", "http://192.0.0.192/opc/v2/", "http://192.0.2.1/", "http://192.31.196.1/",
        "http://192.52.193.1/", "http://192.88.99.1/", "http://192.175.48.1/", "http://198.18.0.1/", "http://198.19.255.255/",
        "http://198.51.100.1/", "http://203.0.113.1/", "http://224.0.0.1/", "http://239.255.255.250:1900/", "http://240.0.0.1/",
        "http://255.255.255.255/",
        // The same, spelled so that a text compares as another.
        "http://127.1/", "http://127.0.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0X7F.0.0.1/",
        "http://0177.0.0.1/", "http://017700000001/", "http://0x7f.0.0x0.1/", "http://127.0.0.01/", "http://0/", "http://0x0/",
        "http://00000000000/", "http://10.1/", "http://0xa000001/", "http://167772161/", "http://012.0.0.1/", "http://2852039166/",
        "http://0xa9fea9fe/", "http://0xa9.0xfe.0xa9.0xfe/", "http://0251.0376.0251.0376/", "http://169.254.43518/",
        "http://3232235521/", "http://192.168.257/", "http://1.1.1.1.@127.0.0.1/", "http://127.0.0.1%2f@1.1.1.1/",
        "http://127.0.0.1\u3002example.com@127.0.0.1/", "http://\uff11\uff12\uff17.0.0.1/", "http://127\u30020\u30020\u30021/",
        "http://\u2460\u2461\u2466.0.0.1/", "http://loca\u00adlhost/", "http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3/",
        "http://127.0.0.1./", "http://%31%32%37.0.0.1/", "http://127.0.0.1%00.example.com/", "http://127.0.0.1%20/",
        "http://127.0.0.1\t/", "http://127.0.0.1\n/", "http:// 127.0.0.1/", "http://127.0.0.1 /", "http://[127.0.0.1]/",
        "http://127.0.0.1:80:80/", "http://127.0.0.256/", "http://1.2.3.4.5/", "http://999999999999/",
        // IPv6: this machine, its network, groups, and what is set apart.
        "http://[::1]/", "http://[::]/", "http://[0:0:0:0:0:0:0:1]/", "http://[0000:0000:0000:0000:0000:0000:0000:0001]/",
        "http://[::0001]:8080/", "http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[::1%25lo]/",
        "http://[febf::1]/", "http://[fec0::1]/", "http://[fc00::1]/", "http://[fd00::1]/", "http://[fd00:ec2::254]/latest/meta-data/",
        "http://[fdff:ffff::1]/", "http://[ff02::1]/", "http://[ff05::2]/", "http://[100::1]/", "http://[100:0:0:1::1]/",
        "http://[2001:2::1]/", "http://[2001:10::1]/", "http://[2001:20::1]/", "http://[2001:1ff::1]/", "http://[2001:db8::1]/",
        "http://[2620:4f:8000::1]/", "http://[3fff::1]/", "http://[5f00::1]/", "http://[4000::1]/", "http://[200::1]/",
        // IPv4 addresses in those of IPv6: mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP.
        "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[::ffff:10.0.0.1]/", "http://[::ffff:169.254.169.254]/",
        "http://[::ffff:a9fe:a9fe]/", "http://[0:0:0:0:0:ffff:c0a8:1]/", "http://[::127.0.0.1]/", "http://[::10.0.0.1]/",
        "http://[::7f00:1]/", "http://[::ffff:0:127.0.0.1]/", "http://[::ffff:0:a00:1]/", "http://[64:ff9b::127.0.0.1]/",
        "http://[64:ff9b::a00:1]/", "http://[64:ff9b::169.254.169.254]/", "http://[64:ff9b:1::10.0.0.1]/",
        "http://[64:ff9b:1:ffff::a9fe:a9fe]/", "http://[2002:7f00:1::]/", "http://[2002:a00:1::1]/", "http://[2002:a9fe:a9fe::1]/",
        "http://[2002:c0a8:101::1]/", "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/", "http://[2001:0:0:0:0:0:f5ff:fffe]/",
        "http://[2600:1f00::5efe:10.0.0.1]/", "http://[2600:1f00::200:5efe:7f00:1]/", "http://[fe80::5efe:192.168.0.1]/",
        // Ports of what speaks no HTTP, or of none.
        "http://1.1.1.1:22/", "http://1.1.1.1:25/", "http://1.1.1.1:0/", "http://1.1.1.1:65536/", "http://1.1.1.1:-80/",
        "https://1.1.1.1:993/", "https://1.1.1.1:6e3/",
        // User names, other schemes, and what is no address.
        "http://user@127.0.0.1/", "http://user:password@1.1.1.1/", "http://@127.0.0.1/", "http://1.1.1.1:80@127.0.0.1/",
        "http://1.1.1.1#@127.0.0.1/", "http://1.1.1.1\\@127.0.0.1/", "http:\\\\127.0.0.1/", "http:/127.0.0.1/", "//127.0.0.1/",
        "http:///127.0.0.1/", "https:127.0.0.1", "file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1:6379/_INFO",
        "dict://127.0.0.1:11211/stats", "ldap://127.0.0.1/", "unix:///var/run/docker.sock", "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
        "ws://127.0.0.1/", "data:text/plain,x", "javascript:alert(1)", "jar:http://127.0.0.1!/", "http://", "http://?", "http://:80/", "",
        "http://127.0.0.1/ HTTP/1.1\r\nHost: x", "http://1.1.1.1/\r\nX-Injected: 1", "http://1.1.1.1/\u0000", "http://1.1.1.1/ a",
        "http://exa mple.com/", "http://ex\u0000ample.com/", "http://a..b/", "http://.127.0.0.1/",
    ];

    /// <summary>What a name resolves to, where nothing of it may be sent to.</summary>
    public static readonly string[] Answers =
    [
        "127.0.0.1", "127.0.0.53", "0.0.0.0", "10.0.0.1", "10.96.0.1", "100.64.1.1", "100.100.100.200", "169.254.169.254",
        "172.17.0.1", "172.20.0.10", "192.168.1.1", "192.0.0.170", "192.0.2.7", "192.88.99.1", "198.18.0.1", "198.51.100.1",
        "203.0.113.1", "224.0.0.251", "240.0.0.1", "255.255.255.255", "168.63.129.16", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.1.2.3",
        "::ffff:169.254.169.254", "::ffff:168.63.129.16", "::127.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b::127.0.0.1",
        "64:ff9b::8.8.8.8", "64:ff9b:1::a00:1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:f5ff:fffe", "2001:db8::1", "2002:7f00:1::",
        "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%1", "2600:1f00::1%1", "fec0::1", "ff02::1",
        "2600:1f00::5efe:a00:1", "2600:1f00::200:5efe:192.168.0.1",
        "10.0.0.1,10.0.0.2", "127.0.0.1,::1", "169.254.169.254,fd00:ec2::254", "0.0.0.0,::", "192.168.0.1,fe80::1,::ffff:10.0.0.1",
    ];
}
