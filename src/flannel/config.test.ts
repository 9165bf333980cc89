import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFault } from '#model/fault.ts';
import { parseCidr } from '#model/ip.ts';
import { freeParts, readConfig } from './config.ts';
import { nameOf, readName } from './lease.ts';

const vxlan = { Type: 'vxlan' };
const read = (config: object) => readConfig(JSON.stringify(config));

test('what is left out is as flannel has it', () => {
  assert.deepEqual(read({ Network: '10.5.0.0/16', Backend: vxlan }), {
    ranges: [{ cidr: '10.5.0.0/16', length: 24, first: '10.5.1.0', last: '10.5.255.0' }],
    carry: 'vxlan',
    vni: 1,
  });
  assert.equal(read({ network: '10.5.0.0/23', BACKEND: { type: 'host-gw' } }).ranges[0]?.length, 25);
  assert.equal(read({ Network: '10.5.0.0/16', SubnetLen: 0, Backend: { ...vxlan, Port: 0, DirectRouting: true } }).carry, 'direct-routing');
  const both = read({ Network: '10.5.0.0/16', EnableIPv6: true, IPv6Network: 'fc00::/48', Backend: { ...vxlan, VNI: 9, Port: 8472 } });
  assert.deepEqual(both.ranges[1], { cidr: 'fc00::/48', length: 64, first: 'fc00:0:0:1::', last: 'fc00:0:0:ffff::' });
  assert.equal(both.vni, 9);
  // The port of a WireGuard device of ours follows from its network's VNI.
  assert.equal(read({ Network: '10.5.0.0/16', Backend: { Type: 'wireguard' } }).vni, 4096);
  assert.equal(read({ Network: '10.5.0.0/16', Backend: { Type: 'wireguard', ListenPort: 51_830 } }).vni, 4106);
});

test('what is wrong, or would have this host carry unlike its neighbours, is refused with the name of the setting', () => {
  const network = { Network: '10.5.0.0/16', Backend: vxlan };
  const six = { ...network, EnableIPv6: true, IPv6Network: 'fc00::/48' };
  const wireguard = { Network: '10.5.0.0/16', Backend: { Type: 'wireguard' } };
  for (const [config, code, field] of [
    [{ Backend: vxlan }, 'invalid', 'Network'],
    [{ ...network, Network: 'fc00::/48' }, 'invalid', 'Network'],
    [{ ...network, Network: '10.5.0.0/29' }, 'invalid', 'Network'],
    [{ ...network, Network: 'all' }, 'invalid', 'network'],
    [{ ...network, SubnetLen: 17 }, 'invalid', 'SubnetLen'],
    [{ ...network, SubnetLen: 31 }, 'invalid', 'subnetlen'],
    [{ ...network, SubnetMin: '10.6.0.0' }, 'invalid', 'SubnetMin'],
    [{ ...network, SubnetMax: '10.5.9.7' }, 'invalid', 'SubnetMax'],
    [{ ...network, EnableIPv4: false }, 'unsupported', 'EnableIPv4'],
    [{ ...network, EnableIPv6: true }, 'invalid', 'IPv6Network'],
    [{ ...six, IPv6SubnetLen: 127 }, 'invalid', 'ipv6subnetlen'],
    [{ ...six, IPv6SubnetMin: 'fd00::' }, 'invalid', 'IPv6SubnetMin'],
    [{ Network: '10.5.0.0/16' }, 'invalid', 'type'],
    [{ ...network, Backend: { Type: 'ipip' } }, 'unsupported', 'Backend.Type'],
    [{ ...network, Backend: { ...vxlan, VNI: 0x1000000 } }, 'invalid', 'vni'],
    [{ ...network, Backend: { ...vxlan, Port: 4789 } }, 'unsupported', 'Backend.Port'],
    [{ ...wireguard, Backend: { Type: 'wireguard', PSK: 'x' } }, 'unsupported', 'Backend.PSK'],
    [{ ...wireguard, Backend: { Type: 'wireguard', ListenPort: 500 } }, 'unsupported', 'Backend.ListenPort'],
    [{ ...six, Backend: { Type: 'wireguard' } }, 'unsupported', 'EnableIPv6'],
  ] as const) {
    assert.throws(
      () => read(config),
      (error) => isFault(error, code) && error.field === field,
      JSON.stringify(config),
    );
  }
  for (const text of ['', '[]', 'null', '"x"'])
    assert.throws(
      () => readConfig(text),
      (error) => isFault(error, 'invalid'),
    );
});

test('names of leases are read as they are written', () => {
  for (const name of ['10.5.34.0-24', '10.5.34.0-24&fc00:0:0:5::-64', '10.5.34.0-24&fc00::-64']) assert.equal(nameOf(readName(name)), name);
  for (const name of ['', '10.5.34.0', '10.5.34.0-40', '10.5.34.1-24', '10.5.34.0-24&fc00::', '10.5.34.0-24/x', 'x10.5.34.0-24']) {
    assert.throws(
      () => readName(name),
      (error) => isFault(error, 'invalid'),
      name,
    );
  }
});

test('free parts of a range are those between its ends, a hundred at most', () => {
  const [range] = read({ Network: '10.5.0.0/16', SubnetMin: '10.5.4.0', SubnetMax: '10.5.6.0', Backend: vxlan }).ranges;
  assert.ok(range !== undefined);
  assert.deepEqual(
    freeParts(range, (subnet) => subnet === '10.5.5.0/24'),
    [parseCidr('10.5.4.0/24'), parseCidr('10.5.6.0/24')],
  );
  const [wide] = read({ Network: '10.0.0.0/8', Backend: vxlan }).ranges;
  assert.ok(wide !== undefined);
  assert.equal(freeParts(wide, () => false).length, 100);
});
