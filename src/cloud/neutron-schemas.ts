// What of Neutron's resources Causeway reads (docs.openstack.org/api-ref/network/v2). Every release answers with further fields;
// those that an extension brings may be absent.
import * as v from 'valibot';
import type { Schema } from '#api/parse.ts';

export interface NeutronNetwork {
  readonly id: string;
  readonly name: string;
  readonly projectId: string;
  readonly mtu: number;
  /** How the cloud carries it; told to administrators only. */
  readonly type?: string | undefined;
  readonly isExternal: boolean;
  readonly subnets: readonly string[];
}
export interface NeutronSubnet {
  readonly id: string;
  readonly name: string;
  readonly networkId: string;
  readonly cidr: string;
  readonly gateway: string | undefined;
  readonly tags: readonly string[];
}
export interface AddressPair {
  readonly ip_address: string;
  readonly mac_address?: string | undefined;
}
export interface NeutronPort {
  readonly id: string;
  readonly name: string;
  readonly networkId: string;
  readonly projectId: string;
  readonly mac: string;
  readonly owner: string;
  readonly device: string;
  readonly status: string;
  readonly addresses: readonly { readonly ip: string; readonly subnetId: string }[];
  readonly groups: readonly string[];
  readonly pairs: readonly AddressPair[];
  readonly portSecurity: boolean;
  readonly description: string;
  /** Of which it is the parent. */
  readonly trunk?: { readonly id: string; readonly subPorts: readonly { readonly id: string; readonly vlan: number }[] };
  readonly tags: readonly string[];
  readonly revision: number;
}
export interface SecurityGroup {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly tags: readonly string[];
  readonly revision: number;
  readonly rules: readonly SecurityGroupRule[];
}
export interface SecurityGroupRule {
  readonly id: string;
  readonly groupId: string;
  readonly direction: 'ingress' | 'egress';
  readonly ethertype: 'IPv4' | 'IPv6';
  /** A name or a number, as it was made. */
  readonly protocol: string | undefined;
  readonly portMin: number | undefined;
  readonly portMax: number | undefined;
  readonly remoteGroup: string | undefined;
  readonly remotePrefix: string | undefined;
  /** Id; a list of ranges. */
  readonly remoteAddressGroup: string | undefined;
  readonly description: string;
}
export interface ExtraRoute {
  readonly destination: string;
  readonly nexthop: string;
}
export interface NeutronRouter {
  readonly id: string;
  readonly name: string;
  readonly routes: readonly ExtraRoute[];
  readonly externalNetwork: string | undefined;
  readonly tags: readonly string[];
  readonly revision: number;
}
export interface FloatingIp {
  readonly id: string;
  readonly networkId: string;
  readonly description: string;
  readonly tags: readonly string[];
  readonly revision: number;
  readonly address: string;
  readonly fixedAddress: string | undefined;
  readonly portId: string | undefined;
  readonly status: string;
  /** Of one that leads nowhere as a whole. */
  readonly forwards: readonly PortForward[];
}
/** `protocol` by name. */
export interface PortForward {
  readonly portId: string | undefined;
  readonly protocol: string;
  readonly internalAddress: string;
  readonly internalPort: number;
  readonly externalPort: number;
}
export interface Trunk {
  readonly id: string;
  readonly name: string;
  readonly portId: string;
  readonly status: string;
  readonly subPorts: readonly SubPort[];
  readonly revision: number;
}
export interface SubPort {
  readonly port_id: string;
  readonly segmentation_type: string;
  readonly segmentation_id: number;
}
/** One limit of a project; -1 is no limit. */
export interface Quota {
  readonly limit: number;
  readonly used: number;
}
export interface Extension {
  readonly alias: string;
  readonly name: string;
}

const text = v.nullish(v.string(), '');
const absent = v.pipe(
  v.nullish(v.string()),
  v.transform((value) => value ?? undefined),
);
const absentNumber = v.pipe(
  v.nullish(v.number()),
  v.transform((value) => value ?? undefined),
);
const tags = v.optional(v.array(v.string()), []);
const revision = v.optional(v.number(), 0);

const networkAnswer = v.object({
  id: v.string(),
  name: text,
  project_id: text,
  mtu: v.number(),
  'provider:network_type': absent,
  'router:external': v.optional(v.boolean(), false),
  subnets: v.array(v.string()),
});
const network: Schema<NeutronNetwork> = v.pipe(
  networkAnswer,
  v.transform(({ project_id: projectId, 'provider:network_type': type, 'router:external': isExternal, ...rest }) => ({
    ...rest,
    projectId,
    type,
    isExternal,
  })),
);

const subnetAnswer = v.object({ id: v.string(), name: text, network_id: v.string(), cidr: v.string(), gateway_ip: absent, tags });
const subnet: Schema<NeutronSubnet> = v.pipe(
  subnetAnswer,
  v.transform(({ network_id: networkId, gateway_ip: gateway, ...rest }) => ({ ...rest, networkId, gateway })),
);

const subPort: Schema<SubPort> = v.object({ port_id: v.string(), segmentation_type: v.string(), segmentation_id: v.number() });
const trunkOf = (found: { readonly trunk_id: string; readonly sub_ports: readonly SubPort[] } | undefined): Pick<NeutronPort, 'trunk'> =>
  found === undefined
    ? {}
    : { trunk: { id: found.trunk_id, subPorts: found.sub_ports.map(({ port_id: id, segmentation_id: vlan }) => ({ id, vlan })) } };

const portAnswer = v.object({
  id: v.string(),
  name: text,
  network_id: v.string(),
  project_id: text,
  mac_address: v.string(),
  device_owner: text,
  device_id: text,
  status: text,
  fixed_ips: v.array(v.object({ ip_address: v.string(), subnet_id: v.string() })),
  security_groups: v.optional(v.array(v.string()), []),
  allowed_address_pairs: v.optional(v.array(v.object({ ip_address: v.string(), mac_address: v.optional(v.string()) })), []),
  port_security_enabled: v.optional(v.boolean(), true),
  description: text,
  trunk_details: v.nullish(v.object({ trunk_id: v.string(), sub_ports: v.array(subPort) })),
  tags,
  revision_number: revision,
});
const port: Schema<NeutronPort> = v.pipe(
  portAnswer,
  v.transform((found) => ({
    id: found.id,
    name: found.name,
    networkId: found.network_id,
    projectId: found.project_id,
    mac: found.mac_address,
    owner: found.device_owner,
    device: found.device_id,
    status: found.status,
    addresses: found.fixed_ips.map((one) => ({ ip: one.ip_address, subnetId: one.subnet_id })),
    groups: found.security_groups,
    pairs: found.allowed_address_pairs,
    portSecurity: found.port_security_enabled,
    description: found.description,
    ...trunkOf(found.trunk_details ?? undefined),
    tags: found.tags,
    revision: found.revision_number,
  })),
);

const ruleAnswer = v.object({
  id: v.string(),
  security_group_id: v.string(),
  direction: v.picklist(['ingress', 'egress']),
  ethertype: v.picklist(['IPv4', 'IPv6']),
  protocol: absent,
  port_range_min: absentNumber,
  port_range_max: absentNumber,
  remote_group_id: absent,
  remote_ip_prefix: absent,
  remote_address_group_id: absent,
  description: text,
});
const rule: Schema<SecurityGroupRule> = v.pipe(
  ruleAnswer,
  v.transform((found) => ({
    id: found.id,
    groupId: found.security_group_id,
    direction: found.direction,
    ethertype: found.ethertype,
    protocol: found.protocol,
    portMin: found.port_range_min,
    portMax: found.port_range_max,
    remoteGroup: found.remote_group_id,
    remotePrefix: found.remote_ip_prefix,
    remoteAddressGroup: found.remote_address_group_id,
    description: found.description,
  })),
);

const groupAnswer = v.object({
  id: v.string(),
  name: text,
  description: text,
  tags,
  revision_number: revision,
  security_group_rules: v.array(rule),
});
const group: Schema<SecurityGroup> = v.pipe(
  groupAnswer,
  v.transform(({ revision_number, security_group_rules: rules, ...rest }) => ({ ...rest, revision: revision_number, rules })),
);

const routerAnswer = v.object({
  id: v.string(),
  name: text,
  routes: v.optional(v.array(v.object({ destination: v.string(), nexthop: v.string() })), []),
  external_gateway_info: v.nullish(v.object({ network_id: v.string() })),
  tags,
  revision_number: revision,
});
const router: Schema<NeutronRouter> = v.pipe(
  routerAnswer,
  v.transform(({ external_gateway_info: gateway, revision_number, ...rest }) => ({
    ...rest,
    externalNetwork: gateway?.network_id,
    revision: revision_number,
  })),
);

const forward: Schema<PortForward | undefined> = v.pipe(
  v.object({
    internal_port_id: absent,
    protocol: v.string(),
    internal_ip_address: v.string(),
    internal_port: absentNumber,
    external_port: absentNumber,
  }),
  v.transform(({ internal_port: internalPort, external_port: externalPort, ...found }) =>
    // Those of ranges (extension floating-ip-port-forwarding-port-ranges) name no single port.
    internalPort === undefined || externalPort === undefined
      ? undefined
      : {
          portId: found.internal_port_id,
          protocol: found.protocol,
          internalAddress: found.internal_ip_address,
          internalPort,
          externalPort,
        },
  ),
);

const floatingIpAnswer = v.object({
  id: v.string(),
  floating_network_id: v.string(),
  floating_ip_address: v.string(),
  fixed_ip_address: absent,
  port_id: absent,
  status: text,
  description: text,
  tags,
  revision_number: revision,
  port_forwardings: v.nullish(v.array(forward), []),
});
const floatingIp: Schema<FloatingIp> = v.pipe(
  floatingIpAnswer,
  v.transform((found) => ({
    id: found.id,
    forwards: found.port_forwardings.filter((one) => one !== undefined),
    networkId: found.floating_network_id,
    description: found.description,
    tags: found.tags,
    revision: found.revision_number,
    address: found.floating_ip_address,
    fixedAddress: found.fixed_ip_address,
    portId: found.port_id,
    status: found.status,
  })),
);

const trunkAnswer = v.object({
  id: v.string(),
  name: text,
  port_id: v.string(),
  status: text,
  sub_ports: v.array(subPort),
  revision_number: revision,
});
const trunk: Schema<Trunk> = v.pipe(
  trunkAnswer,
  v.transform(({ port_id: portId, sub_ports: subPorts, revision_number, ...rest }) => ({
    ...rest,
    portId,
    subPorts,
    revision: revision_number,
  })),
);

const extension: Schema<Extension> = v.object({ alias: v.string(), name: text });

export const quotas: Schema<Readonly<Record<string, Quota>>> = v.record(v.string(), v.object({ limit: v.number(), used: v.number() }));

export interface Collections {
  readonly networks: NeutronNetwork;
  readonly subnets: NeutronSubnet;
  readonly ports: NeutronPort;
  readonly 'security-groups': SecurityGroup;
  readonly 'security-group-rules': SecurityGroupRule;
  readonly routers: NeutronRouter;
  readonly floatingips: FloatingIp;
  readonly trunks: Trunk;
  readonly extensions: Extension;
}
export type CollectionName = keyof Collections;

interface CollectionOf<T> {
  /** How bodies name one of it; many are named as in the path, with `_` for `-`. */
  readonly one: string;
  readonly schema: Schema<T>;
  /** What is asked for: for each further field of each member Neutron would look up whether this login may see it. */
  readonly fields: readonly string[];
}
const fieldsOf = ({ entries }: { readonly entries: object }): string[] => Object.keys(entries);

export const collections: { readonly [K in CollectionName]: CollectionOf<Collections[K]> } = {
  networks: { one: 'network', schema: network, fields: fieldsOf(networkAnswer) },
  subnets: { one: 'subnet', schema: subnet, fields: fieldsOf(subnetAnswer) },
  ports: { one: 'port', schema: port, fields: fieldsOf(portAnswer) },
  'security-groups': { one: 'security_group', schema: group, fields: fieldsOf(groupAnswer) },
  'security-group-rules': { one: 'security_group_rule', schema: rule, fields: fieldsOf(ruleAnswer) },
  routers: { one: 'router', schema: router, fields: fieldsOf(routerAnswer) },
  floatingips: { one: 'floatingip', schema: floatingIp, fields: fieldsOf(floatingIpAnswer) },
  trunks: { one: 'trunk', schema: trunk, fields: fieldsOf(trunkAnswer) },
  // They know of no fields.
  extensions: { one: 'extension', schema: extension, fields: [] },
};
