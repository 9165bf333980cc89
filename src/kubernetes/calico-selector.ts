// Selectors of Calico's policies in the words of label-selector.ts: whose labels a condition means follows from the field that it
// stands in (`selector`, `namespaceSelector`, `serviceAccountSelector`), or from how Calico itself prefixes labels that are not
// the endpoint's own (libcalico-go/lib/backend/k8s/conversion: `pcns.` and `pcsa.`).
import { assertNever, Fault } from '#model/fault.ts';
import { parseSelector, type Selector } from '#model/selector.ts';
import { accountName, both, type Holder, labelOf, namespaceName, podMark } from './label-selector.ts';

const nameLabel = 'projectcalico.org/name';
const nameOf = { namespace: namespaceName, 'service account': accountName } as const;
/** Labels that endpoints have by themselves (api/pkg/apis/projectcalico/v3/constants.go); pods' own of these names count for nothing. */
const automatic: ReadonlyMap<string, string> = new Map([
  ['projectcalico.org/namespace', namespaceName],
  ['projectcalico.org/serviceaccount', accountName],
  ['projectcalico.org/service-account', accountName],
  ['projectcalico.org/orchestrator', podMark],
]);

function labelFor(label: string, of: Holder): string {
  if (of !== 'endpoint') return label === nameLabel ? nameOf[of] : labelOf(of, label);
  if (label.startsWith('pcns.')) return labelFor(label.slice(5), 'namespace');
  if (label.startsWith('pcsa.')) return labelFor(label.slice(5), 'service account');
  return automatic.get(label) ?? label;
}

function reworded(selector: Selector, of: Holder): Selector {
  switch (selector.type) {
    case 'all':
      return selector;
    case 'global':
      if (of === 'namespace') return { type: 'not', of: { type: 'has', label: namespaceName } };
      throw new Fault('invalid', 'global() has a meaning in the namespaceSelector of a rule only');
    case 'has':
    case 'in':
    case 'compare':
      return { ...selector, label: labelFor(selector.label, of) };
    case 'not':
      return { ...selector, of: reworded(selector.of, of) };
    case 'and':
    case 'or':
      return { ...selector, of: selector.of.map((one) => reworded(one, of)) };
    default:
      return assertNever(selector);
  }
}

const isGlobal = (selector: Selector): boolean => {
  if (selector.type === 'and' || selector.type === 'or') return selector.of.some(isGlobal);
  return selector.type === 'not' ? isGlobal(selector.of) : selector.type === 'global';
};

/**
 * `of`: whose labels its labels are. What is in no namespace is picked by none of `namespaceSelector` that does not say `global()`,
 * also not by what it says is absent; and what has no account by no `serviceAccountSelector`. Fault `invalid`.
 */
export function calicoSelector(text: string, of: Holder): Selector {
  const parsed = parseSelector(text);
  const selector = reworded(parsed, of);
  return of === 'endpoint' || isGlobal(parsed) ? selector : both({ type: 'has', label: nameOf[of] }, selector);
}
