// Which networks a pod asks for: the annotation of the Network Plumbing Working Group's multi-network contract (Kubernetes
// Network Custom Resource Definition De-facto Standard 1.3, 4.1.2, as Multus reads it), as a list of names or as JSON. What could
// have no effect is refused rather than passed over, as in CNI configurations.
import * as v from 'valibot';
import * as field from '#api/fields.ts';
import { parse, type Schema } from '#api/parse.ts';
import { Fault, isFault } from '#model/fault.ts';
import { familyOf, type Ip, type Mac } from '#model/ip.ts';

export const networksAnnotation = 'k8s.v1.cni.cncf.io/networks';
/** Of Multus: another network in the place of the cluster's. */
export const defaultAnnotation = 'v1.multus-cni.io/default-network';
/** Where Multus, as it is installed, has the definitions that the latter names without a namespace. */
const defaultNamespace = 'kube-system';

export interface NetworkSelection {
  readonly namespace: string;
  readonly name: string;
  readonly ifname: string;
  readonly ips: readonly string[];
  readonly mac?: Mac;
  readonly gateways: readonly Ip[];
  readonly args: Readonly<Record<string, unknown>>;
  /** What is asked of plugins with the capabilities `bandwidth` and `portMappings`, in CNI's words. */
  readonly capabilities: Readonly<Record<string, unknown>>;
}

const mostNetworks = 32;
const mostCharacters = 262_144;
const optional = v.exactOptional;

/** Names of objects are DNS subdomains, those of namespaces labels (RFC 1123). */
const objectName: Schema<string> = v.pipe(
  v.string(),
  v.regex(/^(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/, 'expected the name of a definition'),
);
const namespaceName: Schema<string> = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/, 'expected the name of a namespace'),
);
/** `eth0` is the pod's own network. */
const ifname: Schema<string> = v.pipe(
  field.linkName,
  v.check((name) => !['.', '..', 'lo', 'eth0', 'all', 'default'].includes(name), 'expected a name that is free in the pod'),
);
const bits = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(Number.MAX_SAFE_INTEGER));
const rates = v.strictObject({
  ingressRate: optional(bits),
  ingressBurst: optional(bits),
  egressRate: optional(bits),
  egressBurst: optional(bits),
});
const portMapping = v.strictObject({
  hostPort: field.port,
  containerPort: field.port,
  protocol: optional(v.pipe(v.string(), v.toLowerCase(), v.picklist(['tcp', 'udp', 'sctp'], 'expected tcp, udp or sctp')), 'tcp'),
  hostIP: optional(field.ip),
});
const element = v.strictObject({
  name: objectName,
  namespace: optional(namespaceName),
  interface: optional(ifname),
  ips: optional(field.listOf(v.union([field.ip, field.interfaceAddress], 'expected an address, with or without prefix length'), 16), []),
  mac: optional(field.mac),
  'default-route': optional(field.listOf(field.ip, 2), []),
  'cni-args': optional(field.object, {}),
  bandwidth: optional(rates),
  portMappings: optional(field.listOf(portMapping, 1024), []),
});
type Element = v.InferOutput<typeof element>;

/** Of the contract, and of no use here. */
const unserved = ['infiniband-guid', 'ipam-claim-reference'];
const list = v.pipe(v.array(field.object, 'expected a list'), v.maxLength(mostNetworks));

const wrong = (place: string, message: string, code: 'invalid' | 'unsupported' = 'invalid'): Fault =>
  new Fault(code, `Annotation ${place}: ${message}`, { field: place });

/** As parse; the message begins with the annotation's name. */
function read<T>(schema: Schema<T>, input: unknown, place: string): T {
  try {
    return parse(schema, input, 'it');
  } catch (error) {
    if (!isFault(error)) throw error;
    throw wrong(place, error.message);
  }
}

const placeOf = (index: number, annotation = networksAnnotation): string => `${annotation}[${index}]`;

/** `namespace/name@interface`. */
function shortForm(text: string, place: string): Element {
  const [, namespace, name, asked] = /^(?:([^/@]*)\/)?([^/@]*)(?:@([^/@]*))?$/.exec(text.trim()) ?? [];
  if (name === undefined) throw wrong(place, `${JSON.stringify(text.slice(0, 80))} is not of the form namespace/name@interface`);
  return read(
    element,
    {
      name,
      ...(namespace === undefined ? {} : { namespace: namespace.trim() }),
      ...(asked === undefined ? {} : { interface: asked.trim() }),
    },
    place,
  );
}

function longForm(text: string, annotation: string): Element[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw wrong(annotation, 'it is neither a list of names nor JSON');
  }
  return read(list, value, annotation).map((item, index) => {
    const place = placeOf(index, annotation);
    const odd = unserved.find((key) => Object.hasOwn(item, key));
    if (odd !== undefined) throw wrong(place, `${odd} cannot be served`, 'unsupported');
    return read(element, item, place);
  });
}

function elementsOf(text: string, annotation: string): Element[] {
  if (text.length > mostCharacters) throw wrong(annotation, `longer than ${mostCharacters} characters`);
  if (text.trim() === '') return [];
  return /[[{"]/.test(text) ? longForm(text, annotation) : text.split(',').map((one, index) => shortForm(one, placeOf(index, annotation)));
}

/**
 * In the order in which they are attached; links without a name of their own are called `net1` for the first of all networks, and so
 * on. Faults `invalid` and `unsupported` naming annotation, element and key.
 */
export function readSelections(text: string, namespace: string): readonly NetworkSelection[] {
  const elements = elementsOf(text, networksAnnotation);
  if (elements.length > mostNetworks) throw wrong(networksAnnotation, `more than ${mostNetworks} networks`);
  const selections = elements.map((item, index) => selectionOf(item, { namespace, ifname: `net${index + 1}` }));
  checkUnlike(selections);
  return selections;
}

/** Only what the pod's own link is the same with wherever it leads. */
const notOfTheFirst = ['interface', 'default-route', 'cni-args', 'portMappings'] as const;
const isAsked = (value: unknown): boolean => value !== undefined && Object.keys(Object(value)).length > 0;

/**
 * The network in the place of the cluster's, as Multus reads it: one, by default of the namespace kube-system. Undefined: none is
 * asked for. Faults as readSelections.
 */
export function readDefault(text: string): NetworkSelection | undefined {
  const [first, second] = elementsOf(text, defaultAnnotation);
  if (first === undefined) return undefined;
  if (second !== undefined) throw wrong(defaultAnnotation, "a pod has one network in the place of the cluster's");
  const odd = notOfTheFirst.find((key) => isAsked(first[key]));
  if (odd !== undefined) throw wrong(placeOf(0, defaultAnnotation), `${odd} cannot be served`, 'unsupported');
  return selectionOf(first, { namespace: defaultNamespace, ifname: 'eth0' });
}

function selectionOf(item: Element, usual: Pick<NetworkSelection, 'namespace' | 'ifname'>): NetworkSelection {
  const { name, namespace, interface: asked, ips, mac, bandwidth, portMappings } = item;
  return {
    namespace: namespace ?? usual.namespace,
    name,
    ifname: asked ?? usual.ifname,
    ips,
    ...(mac === undefined ? {} : { mac }),
    gateways: item['default-route'],
    args: item['cni-args'],
    capabilities: {
      ...(bandwidth === undefined ? {} : { bandwidth }),
      ...(portMappings.length === 0 ? {} : { portMappings }),
    },
  };
}

/** Two links of one name, or two default routes of one family. */
function checkUnlike(selections: readonly NetworkSelection[]): void {
  const seen = new Set<string>();
  const once = (what: string, index: number, key: string): void => {
    if (seen.has(what)) throw wrong(placeOf(index), `${key}: ${what} is there twice`);
    seen.add(what);
  };
  for (const [index, selection] of selections.entries()) {
    once(selection.ifname, index, 'interface');
    for (const ip of selection.gateways) once(`a default route of IPv${familyOf(ip)}`, index, 'default-route');
  }
}
