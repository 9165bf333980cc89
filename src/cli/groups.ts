// The first words of the command line. A group is loaded when its word is used, so that no command pays for the others.
import type { Group } from './command.ts';

export interface GroupEntry {
  readonly name: string;
  readonly summary: string;
  readonly section: string;
  readonly load: () => Promise<Group>;
}

const networks = 'Networks:';
const installation = 'Installation:';
const program = 'This program:';

export const groups: readonly GroupEntry[] = [
  {
    name: 'network',
    section: networks,
    summary: 'Make, show, change and remove networks',
    load: async () => (await import('./network.ts')).group,
  },
  {
    name: 'endpoint',
    section: networks,
    summary: 'Show containers attached to networks',
    load: async () => (await import('./endpoint.ts')).group,
  },
  { name: 'pool', section: networks, summary: 'Address ranges of networks', load: async () => (await import('./pool.ts')).group },
  {
    name: 'expose',
    section: networks,
    summary: "Open a container's port to the outside",
    load: async () => (await import('./exposure.ts')).exposeGroup,
  },
  {
    name: 'exposure',
    section: networks,
    summary: 'List and close what is exposed',
    load: async () => (await import('./exposure.ts')).exposureGroup,
  },
  {
    name: 'bgp',
    section: networks,
    summary: 'With whom hosts of the model calico speak, and how',
    load: async () => (await import('./bgp.ts')).bgpGroup,
  },
  {
    name: 'secret',
    section: networks,
    summary: 'Passwords of BGP peers',
    load: async () => (await import('./bgp.ts')).secretGroup,
  },
  {
    name: 'explain',
    section: networks,
    summary: 'What a network is made of, costs and needs',
    load: async () => (await import('./explain.ts')).group,
  },
  {
    name: 'plan',
    section: networks,
    summary: 'Which networking model suits a cloud and your needs',
    load: async () => (await import('./plan.ts')).group,
  },
  {
    name: 'cloud',
    section: networks,
    summary: 'What an OpenStack cloud must allow: show, allow, take back',
    load: async () => (await import('./cloud.ts')).group,
  },
  {
    name: 'magnum',
    section: networks,
    summary: "Clusters of OpenStack's Magnum with Causeway as their network",
    load: async () => (await import('./magnum.ts')).group,
  },
  {
    name: 'policy',
    section: networks,
    summary: "A cluster's policies in force on this host",
    load: async () => (await import('./policy.ts')).group,
  },
  {
    name: 'get',
    section: networks,
    summary: 'Print tenants, networks, exposures and BGP as YAML documents',
    load: async () => (await import('./manifest.ts')).getGroup,
  },
  {
    name: 'apply',
    section: networks,
    summary: 'Make what YAML documents say',
    load: async () => (await import('./manifest.ts')).applyGroup,
  },
  {
    name: 'status',
    section: installation,
    summary: 'Is everything well? Exit status 10 when not',
    load: async () => (await import('./status.ts')).group,
  },
  { name: 'host', section: installation, summary: 'Show, label and remove hosts', load: async () => (await import('./host.ts')).group },
  { name: 'tenant', section: installation, summary: 'Owners of networks', load: async () => (await import('./tenant.ts')).group },
  {
    name: 'token',
    section: installation,
    summary: 'Tokens for hosts to join with and for users',
    load: async () => (await import('./token.ts')).group,
  },
  {
    name: 'certificate',
    section: installation,
    summary: 'Certificates that hosts hold',
    load: async () => (await import('./certificate.ts')).group,
  },
  {
    name: 'context',
    section: program,
    summary: 'Which controllers you know and which one is used',
    load: async () => (await import('./context.ts')).group,
  },
  {
    name: 'version',
    section: program,
    summary: 'Versions of this program and of the controller',
    load: async () => (await import('./version.ts')).group,
  },
  { name: 'completion', section: program, summary: 'Completion for your shell', load: async () => (await import('./completion.ts')).group },
];

/** Words that the script `causeway` starts other programs for; named here so that help and completion know them. */
export const otherPrograms: readonly { readonly name: string; readonly summary: string }[] = [
  { name: 'controller', summary: 'Serve the API and keep the state' },
  { name: 'agent', summary: 'Join this host and keep its networks; as root' },
  { name: 'demo', summary: 'Show everything on this one machine, in network namespaces' },
  { name: 'lab', summary: 'Build, enter and remove such a machine room by hand' },
  { name: 'plugin', summary: 'Build the managed plugin for a Swarm' },
  { name: 'image', summary: 'Build the container image for Kubernetes' },
  { name: 'cni', summary: 'Build the program that container runtimes execute' },
  { name: 'test', summary: 'Run the tests' },
];
