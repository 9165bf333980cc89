// The kernel state of a lab host that Causeway could have a hand in, as text. Two readings of it: `stateOf` is the same only
// as long as nothing at all was written (indexes, handles and process numbers are in it); `shapeOf` is the same when everything
// of ours is as it was, also if it had to be made again, and leaves out what belongs to others.
import type { Host } from '#lab/host.ts';

// What time alone changes is left out of both: neighbours that the kernel learned, counters, timers.
const script = `
whose=$1
dump() {
  name=$1; ipn=$2; enter=$3
  echo "== $name link";  ip $ipn -d -j link show | jq -c 'sort_by(.ifindex)[] | del(.. | .gc_timer?, .hello_timer?, .tcn_timer?, .topology_change_timer?)'
  echo "== $name addr";  ip $ipn -j addr show | jq -c '.[] | .ifname as $l | .addr_info[] | {l: $l} + . | del(.valid_life_time, .preferred_life_time)'
  echo "== $name route"; for f in -4 -6; do ip $ipn $f -j route show table all | jq -c '.[]' | sort; done
  echo "== $name neigh"; ip $ipn -j neigh show nud permanent | jq -c '.[]' | sort
  echo "== $name fdb";   bridge $ipn -j fdb show | jq -c '.[]' | sort
  echo "== $name nft";   if [ "$whose" = ours ]; then $enter nft -s list table inet causeway; else $enter nft -s -a list ruleset; fi
  echo "== $name sysctl"; $enter sh -c 'for f in /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/rp_filter /proc/sys/net/ipv4/conf/*/route_localnet /proc/sys/net/ipv6/conf/all/forwarding; do echo "$f $(cat $f)"; done'
}
dump host "" ""
for netns in $(ls /run/netns 2>/dev/null | grep '^cw-' | sort); do dump $netns "-n $netns" "nsenter --net=/run/netns/$netns --"; done
echo "== wireguard"; pgrep -a wireguard-go
[ -d /run/causeway/wireguard ] && unshare --mount sh -c 'mkdir -p /var/run/wireguard; mount --bind /run/causeway/wireguard /var/run/wireguard
  for link in $(wg show interfaces); do echo $link; wg showconf $link | sort; done'
for pid in $(docker -H unix:///run/docker.sock ps --quiet | xargs -r docker -H unix:///run/docker.sock inspect --format '{{.State.Pid}}' | sort -n); do
  echo "== container $pid"
  nsenter --net=/proc/$pid/ns/net -- sh -c 'ip -j link | jq -c ".[]"; ip -j addr | jq -c ".[] | .addr_info[]"; ip -j route | jq -c ".[]"; ip -6 -j route | jq -c ".[]"'
done
true
`;

async function read(host: Host, whose: 'ours' | 'everything'): Promise<string[]> {
  return (await host.ask(['sh', '-c', script, 'sh', whose])).split('\n');
}

/** Everything. Takes about a tenth of a second per domain. */
export const stateOf = (host: Host): Promise<string[]> => read(host, 'everything');

// Numbers that the kernel gives anew; who wrote a container's route (the engine first, the agent when it puts it back); the
// seal of a table, which is over the order of its listing.
const accidental =
  /"(?:ifindex|link_index|link_netnsid|linkNetNsId|valid_life_time|preferred_life_time)":\d+,?|"protocol":"[\w.]+",?|"flags":\[("onlink")?\],?|# handle \d+|^\d+ (?=\/usr\/bin\/wireguard-go)|comment "[0-9a-f]{32}"/g;
// What the kernel makes by itself with an IPv6 link, sooner or later.
const ofTheKernel =
  /"(?:dst|local)":"(?:fe80::[0-9a-f]+:|fe80::(?:\/64)?"|ff00::)|"mac":"(?:33:33|01:00:5e):|"type":"(?:multicast|anycast|local)"/;

/** What is ours, in no particular order within a section. */
export async function shapeOf(host: Host): Promise<string[]> {
  let section = '';
  const shaped = (await read(host, 'ours')).flatMap((line) => {
    if (line.startsWith('== ')) section = line;
    // The host's own links, routes and settings are of no concern, as far as they are not about ours.
    const isOthers = /^== host (?:link|addr|route|neigh|fdb|sysctl)/.test(section) && !/"cw|\/cw/.test(line);
    if (line === section || isOthers || ofTheKernel.test(line)) return [];
    const shape = line.replaceAll(accidental, '');
    // nft lists the elements of a set in the order of its hash.
    const parts = section.endsWith(' nft') ? shape.split(/[,{}]/).map((part) => part.trim()) : [shape];
    return parts.filter((part) => part !== '').map((part) => `${section} | ${part}`);
  });
  return shaped.sort();
}
