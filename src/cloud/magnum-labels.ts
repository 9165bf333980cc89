// Labels of Magnum's users for flannel and Calico that say nothing of Causeway: images of theirs, what is for the other driver, and names
// that Magnum's own templates do not know (magnum/drivers/k8s_fedora_coreos_v1/templates/kubecluster.yaml), most often mistyped ones.
// Whoever has written one is told so by its name.
import { Fault } from '#model/fault.ts';
import { cidrLength, parseCidr } from '#model/ip.ts';

type Driver = 'flannel' | 'calico';
type Labels = Readonly<Record<string, string>>;

const followed: Readonly<Record<Driver, readonly string[]>> = {
  flannel: ['flannel_network_cidr', 'flannel_backend'],
  calico: ['calico_ipv4pool', 'calico_ipv4pool_ipip'],
};
const images = ['flannel_tag', 'flannel_cni_tag', 'calico_tag'];
const nodeLength = 'flannel_network_subnetlen';
/** Of controller-managers, and Magnum's. */
const usualNodeLength = 24;

const isTheirs = (label: string): boolean => /^(flannel|calico)_/.test(label);
const driverOf = (label: string): Driver => (label.startsWith('flannel_') ? 'flannel' : 'calico');

/** One sentence for each. Fault `invalid`: a length that no node's range can have. */
export const passedOver = (model: Driver, labels: Labels): string[] =>
  Object.entries(labels).flatMap(([label, value]) => {
    if (!isTheirs(label)) return [];
    const why = reason(model, label, { value, labels });
    return why === undefined ? [] : [`${label}=${value.slice(0, 80)}: ${why}`];
  });

function reason(model: Driver, label: string, { value, labels }: { readonly value: string; readonly labels: Labels }): string | undefined {
  if (images.includes(label)) return `no image of ${driverOf(label)}'s is used; which one of Causeway's is, says causeway_image`;
  if (label !== nodeLength && !followed[driverOf(label)].includes(label)) return 'Magnum has no such label, and nothing is made of it';
  if (driverOf(label) !== model) return `it counts for the model ${driverOf(label)} only`;
  if (label !== nodeLength) return undefined;
  checkNodeLength(value, labels['flannel_network_cidr']);
  return Number(value) === usualNodeLength
    ? undefined
    : "how long nodes' ranges are is up to the cluster's controller-manager (--node-cidr-mask-size)";
}

function checkNodeLength(value: string, range: string | undefined): void {
  const least = range === undefined ? 0 : cidrLength(parseCidr(range, 'labels.flannel_network_cidr'));
  if (/^\d{1,2}$/.test(value) && Number(value) <= 30 && Number(value) >= least) return;
  throw new Fault('invalid', `Label ${nodeLength}: ${JSON.stringify(value.slice(0, 80))} is not possible`, {
    field: `labels.${nodeLength}`,
    hint: `Write the length of a node's range, a number from ${least} to 30`,
  });
}
