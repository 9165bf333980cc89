// Label selectors of the Kubernetes API (meta/v1 LabelSelector): all of the labels, and all of the expressions. An empty one
// picks everything; whether an absent one picks everything or nothing is said by whoever has it.
import * as v from 'valibot';
import { texts } from '#api/fields.ts';
import type { Labels, Selector } from '#model/selector.ts';

export interface LabelSelector {
  readonly matchLabels?: Readonly<Record<string, string>> | null | undefined;
  readonly matchExpressions?: readonly Expression[] | null | undefined;
}
interface Expression {
  readonly key: string;
  readonly operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist';
  readonly values?: readonly string[] | null | undefined;
}

const expression = v.object({
  key: v.string(),
  operator: v.picklist(['In', 'NotIn', 'Exists', 'DoesNotExist']),
  values: v.optional(v.nullable(v.array(v.string()))),
});
export const labelSelector: v.GenericSchema<unknown, LabelSelector> = v.object({
  matchLabels: v.optional(v.nullable(texts)),
  matchExpressions: v.optional(v.nullable(v.array(expression))),
});

export type Holder = 'endpoint' | 'namespace' | 'service account';

/**
 * Labels of an endpoint's namespace and service account stand beside its own under keys that no label can have, so that nobody
 * who may label a pod can make it look as if it were another's.
 */
export const labelOf = (of: Holder, key: string): string => (of === 'endpoint' ? key : `${of} ${key}`);
export const namespaceName = 'in namespace';
export const accountName = 'of service account';
/** What has it is a pod. */
export const podMark = 'pod of';

/** What has labels, and whose labels it has, too. */
export interface Labelled {
  readonly labels: Labels;
  /** Absent: it is of the whole cluster. */
  readonly namespace?: string;
  readonly namespaceLabels?: Labels;
  /** Of pods. */
  readonly account?: string;
  readonly accountLabels?: Labels;
}

const prefixed = (of: Holder, labels: Labels = {}): Labels =>
  Object.fromEntries(Object.entries(labels).map(([key, value]) => [labelOf(of, key), value]));

/** Everything that selectors look at. */
export const selectable = ({ labels, namespace, namespaceLabels, account, accountLabels }: Labelled): Labels => ({
  ...labels,
  ...prefixed('namespace', namespaceLabels),
  ...prefixed('service account', accountLabels),
  ...(namespace === undefined ? {} : { [namespaceName]: namespace }),
  ...(account === undefined ? {} : { [accountName]: account, [podMark]: 'k8s' }),
});

export const inNamespace = (name: string): Selector => ({ type: 'compare', how: 'equals', label: namespaceName, value: name });

/** The namespace that everything is in which the selector picks, where it says so. */
export function onlyNamespace(selector: Selector): string | undefined {
  const parts = selector.type === 'and' ? selector.of : [selector];
  return parts.flatMap((part) => (part.type === 'compare' && part.label === namespaceName ? [part.value] : []))[0];
}

/** Whether the answer depends on the labels of a namespace, or of a service account. */
export function asks(selector: Selector, of: Exclude<Holder, 'endpoint'>): boolean {
  if (selector.type === 'not') return asks(selector.of, of);
  if (selector.type === 'and' || selector.type === 'or') return selector.of.some((one) => asks(one, of));
  return 'label' in selector && selector.label.startsWith(labelOf(of, ''));
}

/** All of them; in one order, so that equal meanings are mostly equal data. */
export function both(...selectors: readonly Selector[]): Selector {
  const parts = selectors.flatMap((one) => (one.type === 'and' ? one.of : [one])).filter(({ type }) => type !== 'all');
  const [only] = parts;
  if (only === undefined) return { type: 'all' };
  return parts.length === 1 ? only : { type: 'and', of: parts.toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)) };
}

/** `of`: whose labels. NotIn also picks what lacks the label ("Labels and Selectors", set-based requirement). */
export function selectorOf({ matchLabels, matchExpressions }: LabelSelector, of: Holder): Selector {
  const equal = Object.entries(matchLabels ?? {}).map(([key, value]): Selector => ({
    type: 'compare',
    how: 'equals',
    label: labelOf(of, key),
    value,
  }));
  return both(...equal, ...(matchExpressions ?? []).map((one) => expressed(one, of)));
}

function expressed({ key, operator, values }: Expression, of: Holder): Selector {
  const label = labelOf(of, key);
  const isHeld = operator === 'In' || operator === 'Exists';
  const isAboutValues = operator === 'In' || operator === 'NotIn';
  const question: Selector = isAboutValues ? { type: 'in', label, values: [...new Set(values ?? [])].toSorted() } : { type: 'has', label };
  return isHeld ? question : { type: 'not', of: question };
}
