// The part of the agent's command line that makes its host a node of a Kubernetes cluster.
import { models } from '#drivers/models.ts';
import { Fault } from '#model/fault.ts';
import { type Cidr, familyOf, parseCidr } from '#model/ip.ts';
import type { CarryName } from '#model/resources.ts';

export interface NodeOptions {
  readonly kubeconfig: string;
  /** One per family at most. */
  readonly podCidrs: readonly Cidr[];
  readonly model: 'flannel' | 'calico';
  readonly carry?: CarryName;
  readonly cniConf: string;
  /** Those that stand when a policy comes to forbid them. */
  readonly keepConnections: boolean;
  readonly logDenied: boolean;
}

export interface NodeWords {
  readonly kubernetes: string | undefined;
  /** Comma-separated in the environment. */
  readonly podCidr: readonly string[] | string | undefined;
  readonly model?: string | undefined;
  readonly carry: string | undefined;
  readonly cniConf: string;
  readonly keepConnections: boolean;
  readonly logDenied: boolean;
}

function carryOf(text: string | undefined, model: NodeModel): { carry?: CarryName } {
  if (text === undefined) return model === 'routes' ? { carry: models[model].choices.carry } : {};
  const { carries } = models[model];
  const carry = carries.find((name) => name === text);
  if (carry !== undefined) return { carry };
  throw new Fault('invalid', `Not a carriage of ${model}: ${text}`, { field: '--carry', hint: `Use one of: ${carries.join(', ')}` });
}

/** On nodes `routes` is a carriage of flannel, which differs in nothing else. */
type NodeModel = NodeOptions['model'] | 'routes';

function modelOf(text: string | undefined): NodeModel {
  if (text === undefined || text === 'flannel') return 'flannel';
  if (text === 'calico' || text === 'routes') return text;
  throw new Fault('invalid', `Not a model for nodes: ${text}`, { field: '--model', hint: 'Use flannel, calico or routes' });
}

function podCidrsOf(words: NodeWords['podCidr'], model: NodeModel): Cidr[] {
  const texts = typeof words === 'string' ? words.split(',') : (words ?? []);
  const cidrs = texts.filter((text) => text !== '').map((text) => parseCidr(text, '--pod-cidr'));
  // Pools say it.
  if (model === 'calico') return [];
  if (cidrs.length === 0) {
    throw new Fault('invalid', 'A node has to be told the range of pods', {
      field: '--pod-cidr',
      hint: "It is the controller-manager's --cluster-cidr, for example 10.244.0.0/16",
    });
  }
  if (new Set(cidrs.map(familyOf)).size !== cidrs.length)
    throw new Fault('invalid', 'More than one range of pods per family', { field: '--pod-cidr', hint: 'Give one that covers them' });
  return cidrs;
}

/** Undefined without a kubeconfig. Fault `invalid`. */
export function readNodeOptions(words: NodeWords): NodeOptions | undefined {
  const { kubernetes, podCidr, carry, cniConf, keepConnections, logDenied } = words;
  if (kubernetes === undefined) return undefined;
  const model = modelOf(words.model);
  return {
    kubeconfig: kubernetes,
    podCidrs: podCidrsOf(podCidr, model),
    model: model === 'routes' ? 'flannel' : model,
    ...carryOf(carry, model),
    cniConf,
    keepConnections,
    logDenied,
  };
}
