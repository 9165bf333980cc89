// Files of Calico's users for `causeway apply`: BGPConfiguration, BGPPeer and BGPFilter (projectcalico.org/v3), and the Secrets of
// Kubernetes that their passwords are in, as they are. What is kept only for Kubernetes (a namespace, annotations) is not looked at.
import * as v from 'valibot';
import { parse } from '#api/parse.ts';
import { type BgpRequest, bgpRequest, type SecretRequest, secretRequest } from '#api/requests.ts';
import { Fault } from '#model/fault.ts';
import type { BgpResource } from '#model/resources.ts';

export type CalicoManifest = ({ readonly kind: 'bgp' } & BgpRequest) | ({ readonly kind: 'secret'; readonly name: string } & SecretRequest);

const version = 'projectcalico.org/v3';
const sorts = ['BGPConfiguration', 'BGPPeer', 'BGPFilter'] as const;
const texts = v.record(v.string(), v.string());
const metadata = v.object({ name: v.string(), labels: v.exactOptional(texts) });
const head = v.looseObject({ apiVersion: v.string(), kind: v.string() });
const calico = v.object({ kind: v.picklist(sorts), metadata, spec: v.optional(v.nullable(v.record(v.string(), v.unknown()))) });
const secret = v.object({ metadata, data: v.optional(texts, {}), stringData: v.optional(texts, {}) });
const list = v.object({ kind: v.pipe(v.string(), v.endsWith('List')), items: v.array(v.unknown()) });

/** The documents that one is a list of; itself otherwise. */
export const documentsIn = (value: unknown): readonly unknown[] => {
  const read = v.safeParse(list, value);
  return read.success ? read.output.items : [value];
};

/** Undefined: it is no document of that form. Fault `invalid`, naming the place and field. */
export function calicoManifest(value: unknown, place: string): CalicoManifest | undefined {
  const read = v.safeParse(head, value);
  if (!read.success) return undefined;
  const { apiVersion, kind } = read.output;
  if (apiVersion === 'v1' && kind === 'Secret') return secretOf(value, place);
  if (apiVersion !== version || !sorts.some((sort) => sort === kind)) {
    throw new Fault('invalid', `${place} is a ${kind} of ${apiVersion}, which is not for a controller of Docker hosts`, {
      field: 'kind',
      hint: `Of those there are ${sorts.join(', ')} of ${version}, and Secret of v1.`,
    });
  }
  const said = parse(calico, value, place);
  const { name, labels } = said.metadata;
  const request = { sort: said.kind, name, ...(labels === undefined ? {} : { labels }), spec: said.spec ?? {} };
  return { kind: 'bgp', ...parse(bgpRequest, request, place) };
}

function secretOf(value: unknown, place: string): CalicoManifest {
  const { metadata: about, data, stringData } = parse(secret, value, place);
  const decoded = Object.entries(data).map(([key, text]) => [key, Buffer.from(text, 'base64').toString().trimEnd()] as const);
  return { kind: 'secret', name: about.name, ...parse(secretRequest, { texts: { ...Object.fromEntries(decoded), ...stringData } }, place) };
}

/** As Calico's users write it. */
export const calicoDocument = ({ sort, name, labels, spec }: Pick<BgpResource, 'sort' | 'name' | 'labels' | 'spec'>): object => ({
  apiVersion: version,
  kind: sort,
  metadata: { name, ...(Object.keys(labels).length === 0 ? {} : { labels }) },
  spec,
});
