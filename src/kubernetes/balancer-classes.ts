// Classes of load balancers, as the cloud provider has them in its configuration (`[LoadBalancerClass "dmz"]`; its annotation
// `loadbalancer.openstack.org/class` names one): what operators of a cluster call its external networks, their subnets and where load
// balancers are, so that users need no ids. Pure.
import * as v from 'valibot';
import type { Schema } from '#api/parse.ts';
import { Fault } from '#model/fault.ts';
import { prefix, refused } from './openstack-proxy.ts';

/** By their names; what they say is said as by annotations. */
export type BalancerClasses = Readonly<Record<string, Readonly<Record<string, string>>>>;

const ofFloatingSubnet = ['floating-subnet-id', 'floating-subnet', 'floating-subnet-tags'] as const;
const settings: readonly string[] = ['floating-network-id', ...ofFloatingSubnet, 'network-id', 'subnet-id', 'member-subnet-id'];

const setting = v.pipe(
  v.string(),
  v.check((name) => settings.includes(name), 'It is no setting of a class'),
);
const classes: Schema<BalancerClasses> = v.record(v.string(), v.record(setting, v.pipe(v.string(), v.nonEmpty())));

/** Of JSON; none without it. Fault `invalid`. */
export function readClasses(text = '{}'): BalancerClasses {
  const read = v.safeParse(v.pipe(v.string(), v.parseJson(), classes), text);
  if (read.success) return read.output;
  const [issue] = read.issues;
  throw new Fault('invalid', `Classes of load balancers: ${v.getDotPath(issue) ?? text.slice(0, 60)}: ${issue.message}`, {
    hint: `They are JSON, by name, as in {"dmz": {"floating-subnet-id": "ID"}}; settings are ${settings.join(', ')}`,
  });
}

const isOfFloating = ([key]: readonly [string, string]): boolean => key.startsWith(`${prefix}floating-`);
const classAnnotation = `${prefix}class`;

/**
 * Annotations of a service with what its class says: of floating IPs that goes before what the service says itself, and of other places after it.
 * Fault `unsupported` where there is no such class.
 */
export function classed(annotations: Readonly<Record<string, string>>, all: BalancerClasses): Readonly<Record<string, string>> {
  const name = annotations[classAnnotation]?.trim() ?? '';
  if (name === '') return annotations;
  const found = Object.hasOwn(all, name) ? all[name] : undefined;
  if (found === undefined) {
    const names = Object.keys(all).join(', ');
    throw refused(
      `${classAnnotation}: there is no class ${JSON.stringify(name.slice(0, 60))}, ${names === '' ? 'and no other one' : `only ${names}`}`,
    );
  }
  const said = Object.entries(found).map(([key, value]): [string, string] => [prefix + key, value]);
  const isSubnetSaid = ofFloatingSubnet.some((key) => key in found);
  const hidden = new Set(isSubnetSaid ? ofFloatingSubnet.map((key) => prefix + key) : []);
  const own = Object.entries(annotations).filter(([key]) => !hidden.has(key));
  return Object.fromEntries([...said.filter((one) => !isOfFloating(one)), ...own, ...said.filter(isOfFloating)]);
}
