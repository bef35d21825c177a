"""Words that are not names: what the kernel's tools, Kubernetes, Calico and kube-proxy themselves write.

They stay wherever they stand, a name included that is one of them: a namespace called ``default`` says nothing of
anybody. Everything else is replaced, so a word missing here costs a reader, never a secret.
"""

from __future__ import annotations

from calico_debug.decode.nft_fields import DATA_TYPES
from calico_debug.decode.nft_symbols import BYTE_UNITS, LIMIT_PERIODS, REJECT_CODES, SYMBOLS

_IPROUTE = """
    default local main all unspec unicast broadcast multicast anycast blackhole unreachable prohibit throw nat none
    kernel boot static redirect ra dhcp bird zebra babel bgp isis ospf rip eigrp xorp ntk mrouted onlink linkdown
    dead pervasive offload trap notify rt_offload rt_trap global host link site nowhere low medium high inet inet6
    mpls UP DOWN UNKNOWN LOWERLAYERDOWN NOTPRESENT TESTING DORMANT LOOPBACK BROADCAST MULTICAST POINTOPOINT NOARP
    LOWER_UP PROMISC ALLMULTI MASTER SLAVE DYNAMIC NO-CARRIER M-DOWN DEFAULT REACHABLE STALE DELAY PROBE FAILED
    INCOMPLETE PERMANENT NOARP NONE router proxy ether loopback tunnel tunnel6 ipip gre gre6 sit void ieee802
    noqueue mq fq fq_codel pfifo_fast pfifo noop eui64 random stable_secret none veth vxlan bridge bond vlan dummy
    tun ipvlan macvlan vrf wireguard ipip6 netkit geneve gretap unset set inherit dynamic permanent noprefixroute
    deprecated tentative mngtmpaddr temporary secondary primary external l3mdev unknown off on auto bpf
"""
_CONNTRACK = """
    src dst sport dport packets bytes mark use zone type code id labels secctx helper ipv4 ipv6 tcp udp icmp icmpv6
    sctp dccp udplite gre unknown ASSURED UNREPLIED OFFLOAD HW_OFFLOAD ESTABLISHED SYN_SENT SYN_RECV SYN_SENT2
    FIN_WAIT CLOSE_WAIT LAST_ACK TIME_WAIT CLOSE LISTEN NONE CLOSED COOKIE_WAIT COOKIE_ECHOED SHUTDOWN_SENT
    SHUTDOWN_RECD SHUTDOWN_ACK_SENT HEARTBEAT_SENT HEARTBEAT_ACKED zone-orig zone-reply
"""
_NFT = """
    ip ip6 inet arp netdev filter nat route raw mangle security accept drop reject return jump goto continue queue
    prerouting input forward output postrouting ingress egress calico calico-arp kube-proxy verdict iifname oifname
    interval timeout constant concat persistent random fully-random snat dnat masquerade symmetric warn info notice
    err debug alert crit emerg xt match target notrack once over until addrtype saddr daddr
"""
_IPTABLES = """
    PREROUTING INPUT FORWARD OUTPUT POSTROUTING ACCEPT DROP REJECT RETURN QUEUE NFQUEUE LOG NFLOG MARK CONNMARK DNAT
    SNAT MASQUERADE REDIRECT NOTRACK CT DSCP TOS TRACE TPROXY NFACCT AUDIT CLASSIFY CHECKSUM TCPMSS SECMARK
    CONNSECMARK SET comment conntrack mark connmark set multiport tcp udp icmp icmp6 icmpv6 addrtype limit hashlimit
    rpfilter statistic iprange physdev recent state u32 mac length pkttype owner nfacct bpf socket dscp tos ttl hl
    esp ah frag cpu cgroup NEW ESTABLISHED RELATED INVALID UNTRACKED SNAT DNAT NONE EXPECTED SEEN_REPLY ASSURED
    CONFIRMED ORIGINAL REPLY LOCAL UNICAST BROADCAST ANYCAST MULTICAST BLACKHOLE UNREACHABLE PROHIBIT UNSPEC nth
    random FIN SYN RST PSH ACK URG ALL icmp-port-unreachable icmp-host-unreachable icmp-net-unreachable
    icmp-proto-unreachable icmp-net-prohibited icmp-host-prohibited icmp-admin-prohibited icmp6-port-unreachable
    icmp6-adm-prohibited icmp6-no-route icmp6-addr-unreachable tcp-reset any dst src COMMIT filter nat mangle raw
    security sec second min minute hour day srcip dstip srcport dstport KUBE-SERVICES KUBE-EXTERNAL-SERVICES
    KUBE-NODEPORTS KUBE-POSTROUTING KUBE-MARK-MASQ KUBE-MARK-DROP KUBE-FORWARD KUBE-FIREWALL KUBE-PROXY-FIREWALL
    KUBE-PROXY-CANARY KUBE-KUBELET-CANARY KUBE-IPTABLES-HINT KUBE-LOAD-BALANCER create add hash bitmap list net ip
    port mac iface family inet inet6 hashsize maxelem bucketsize initval counters timeout range nomatch forceadd
    skbinfo netmask markmask
"""
_CALICO = """
    calico cali projectcalico org crd v1 v3 np gnp knp kcnp snp sgnp sknp kanp kbanp ossg adminnetworkpolicy
    baselineadminnetworkpolicy kns ksa pcns pcsa default node kube-admin kube-baseline vxlan vxlan-v6 wireguard wg-v6
    tunl0 this-host masq-ipam-pools all-ipam-pools network-ip-pools all-hosts-net dscp-src-net all-tunnel-net
    istio-all-ztunnels allowed-hosts any-interface-at-all Policy Profile NetworkPolicy GlobalNetworkPolicy
    KubernetesNetworkPolicy ClusterNetworkPolicy AdminNetworkPolicy BaselineAdminNetworkPolicy
    KubernetesClusterNetworkPolicy StagedNetworkPolicy StagedGlobalNetworkPolicy StagedKubernetesNetworkPolicy Start
    End of tier Drop Reject if no policies passed packet Return policy accepted profile on verdict profiles matched
    Endpoint admin disabled Allow forwarded traffic by for forward VXLAN IPinIP encapped packets originating in
    workloads over rate limit Clear Mark within connections connection Unknown interface endpoint explicitly Host
    Configured DefaultEndpointToHostAction IPIP IPv4 IPv6 from non-Calico non-allowed hosts to other Calico allowed
    incoming outgoing Wireguard Pre-approved BPF programs From To workload without seen mark pre-established flows
    Accept that pre-date REJECT rst unknown TCP loopback SNAT calico-packet true false Enabled Disabled Auto NFT
    Legacy Drop Accept Return Reject ACCEPT DROP RETURN REJECT kubernetes etcdv3 none info debug warning error fatal
    WorkloadIPs CalicoIPAM Local External all global has in not contains starts ends with Deny Allow Pass Log
    already been verified check known To flows mark traffic towards it is TRACKed Jump target with Bypass From device
    verified accept non-TCP Mark Unknown
    Ingress Egress Always CrossSubnet Never Set Delete Workload Tunnel DSR Iptables Nftables AKS EKS GKE amd64 arm64
    linux windows KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT kubernetes-services-endpoint tigera-operator
    Automatic Manual LoadBalancer DoesNotExist
"""
_KUBERNETES = """
    kubernetes io k8s kube-system kube-public kube-node-lease kube-dns metadata name namespace serviceaccount
    orchestrator app service-name tier component hostname pod-template-hash service-name managed-by
    endpointslice-controller podIP podIPs IPv4Address IPv6Address IPv4VXLANTunnelAddr IPv6VXLANTunnelAddr
    IPv4IPIPTunnelAddr cni discovery IPv4WireguardInterfaceAddr IPv6WireguardInterfaceAddr TCP UDP SCTP ICMP ICMPv6
    UDPLite ClusterIP NodePort LoadBalancer ExternalName Headless None Cluster Local IPv4 IPv6 FQDN SingleStack
    PreferDualStack RequireDualStack ClientIP InternalIP ExternalIP Hostname InternalDNS ExternalDNS Pod Node
    Service Namespace Running Pending Succeeded Failed Unknown Always OnFailure Never In NotIn Exists DoesNotExist
    Ready True False Accept Admin Baseline Allow Deny Pass cluster IP loadbalancer external endpoints local service
    portals nodeports must be the last rule this chain block localnet firewall dropping marked masquerade
    off-cluster pod kubelet cluster-ips nodeport-ips service-ips service-nodeports no-endpoint-services
    no-endpoint-nodeports services nodeports masquerading mark-for-masquerade reject-chain cluster-ips-check
    service-endpoints-check nodeport-endpoints-check firewall-ips firewall-check hairpin-connections
    filter-prerouting filter-input filter-forward filter-output filter-output-post-dnat nat-prerouting nat-output
    nat-postrouting filter-prerouting-pre-dnat filter-output-pre-dnat filter-input-pre-dnat filter-forward-pre-dnat
"""

KEPT: frozenset[str] = frozenset(
    word for text in (_IPROUTE, _CONNTRACK, _NFT, _IPTABLES, _CALICO, _KUBERNETES) for word in text.split()
) | frozenset(
    word
    for names in (
        *SYMBOLS.values(),
        DATA_TYPES,
        BYTE_UNITS,
        LIMIT_PERIODS.values(),
        *(codes.values() for codes in REJECT_CODES.values()),
    )
    for word in names
)
"""Whole words, as `calico_debug.redact.text` finds them."""
