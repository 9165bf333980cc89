// The whole kernel state of a lab host that Causeway could have a hand in, as text that is the same as long as nothing was
// written: links with their indexes, addresses, routes of all tables, permanent neighbours and forwarding entries, nft with
// handles and without counters, settings, processes of encrypted networks; of the host and of each of its domains.
import type { Host } from '#lab/host.ts';

// What time alone changes is left out: neighbours that the kernel learned, counters, ages.
const script = `
dump() {
  name=$1; ipn=$2; enter=$3
  echo "== $name link";  ip $ipn -d -j link show | jq -c 'sort_by(.ifindex)[]'
  echo "== $name addr";  ip $ipn -j addr show | jq -c '.[] | .ifname as $l | .addr_info[] | {l: $l} + . | del(.valid_life_time, .preferred_life_time)'
  echo "== $name route"; for f in -4 -6; do ip $ipn $f -j route show table all | jq -c '.[]' | sort; done
  echo "== $name neigh"; ip $ipn -j neigh show nud permanent | jq -c '.[]' | sort
  echo "== $name fdb";   bridge $ipn -j fdb show | jq -c '.[]' | sort
  echo "== $name nft";   $enter nft -s -a list ruleset
  echo "== $name sysctl"; $enter sh -c 'for f in /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/rp_filter /proc/sys/net/ipv4/conf/*/route_localnet /proc/sys/net/ipv6/conf/all/forwarding; do echo "$f $(cat $f)"; done'
}
dump host "" ""
for netns in $(ls /run/netns 2>/dev/null | grep '^cw-' | sort); do dump $netns "-n $netns" "nsenter --net=/run/netns/$netns --"; done
echo "== wireguard-go"; pgrep -a wireguard-go
echo "== conf"; for socket in $(ls /run/causeway/wireguard/*.sock 2>/dev/null); do
  printf 'get=1\\n\\n' | busybox nc local:$socket 2>/dev/null | grep -v -e '_bytes=' -e 'last_handshake' | sort
done
true
`;

/** Everything, as lines. Takes about a tenth of a second per domain. */
export async function stateOf(host: Host): Promise<string[]> {
  return (await host.ask(['sh', '-c', script])).split('\n');
}
