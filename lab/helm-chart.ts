// Renders packaging/helm/causeway, so that the manifests for kubectl come from the chart and from nothing else. Neither Debian nor
// npm has Helm or its template language in a form that can be used here, so this reads the small part of it
// (pkg.go.dev/text/template, helm.sh/docs/chart_template_guide) that the chart keeps to, and refuses everything else.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse as parseYaml } from 'yaml';
import { Fault } from '#model/fault.ts';

export const chartFolder: string = join(import.meta.dirname, '..', 'packaging', 'helm', 'causeway');

type Context = Readonly<Record<string, unknown>>;

const text = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));

/** As Go's encoding/json writes it: keys in order, and nothing that HTML would take for its own. */
function json(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(json).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value).replaceAll(/[<>&]/g, (sign) => html[sign] ?? sign);
  const pairs = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return `{${pairs.map(([key, item]) => `${JSON.stringify(key)}:${json(item)}`).join(',')}}`;
}

const html: Readonly<Record<string, string>> = { '<': '\\u003c', '>': '\\u003e', '&': '\\u0026' };

const isEmpty = (value: unknown): boolean =>
  value === undefined || value === null || value === '' || value === 0 || value === false || (Array.isArray(value) && value.length === 0);

/** A value that came through a pipe is the last argument. */
const functions: Readonly<Record<string, (...values: readonly unknown[]) => unknown>> = {
  quote: (value) => JSON.stringify(text(value)),
  toJson: json,
  sha256sum: (value) => createHash('sha256').update(text(value)).digest('hex'),
  default: (fallback, value) => (isEmpty(value) ? fallback : value),
  not: isEmpty,
  eq: (one, other) => one === other,
  join: (separator, list) => (Array.isArray(list) ? list.map(text).join(text(separator)) : text(list)),
  printf: (format, ...values) => values.reduce<string>((whole, value) => whole.replace('%s', () => text(value)), text(format)),
};

const refused = (what: string): Fault => new Fault('unsupported', `The chart's renderer does not know ${what}`);

function lookUp(path: string, context: Context): unknown {
  let value: unknown = context;
  for (const key of path.split('.').slice(1)) {
    if (typeof value !== 'object' || value === null || !(key in value)) throw refused(`a value ${path}`);
    value = (value as Context)[key];
  }
  return value;
}

const tokenPattern = /\s*("(?:[^"\\]|\\.)*"|\.[\w.]+|\w+|[()|])/y;

function tokensOf(source: string): string[] {
  const tokens: string[] = [];
  const whole = source.trim();
  tokenPattern.lastIndex = 0;
  while (tokenPattern.lastIndex < whole.length) {
    const [, token] = tokenPattern.exec(whole) ?? [];
    if (token === undefined) throw refused(`{{ ${whole} }}`);
    tokens.push(token);
  }
  return tokens;
}

function pipeline(tokens: string[], context: Context): unknown {
  let value = command(tokens, context, []);
  while (tokens[0] === '|') {
    tokens.shift();
    value = command(tokens, context, [value]);
  }
  return value;
}

function command(tokens: string[], context: Context, piped: readonly unknown[]): unknown {
  const call = functions[tokens[0] ?? ''];
  if (call === undefined && piped.length > 0) throw refused(`the function ${tokens[0]}`);
  if (call === undefined) return term(tokens, context);
  tokens.shift();
  const words: unknown[] = [];
  while (tokens[0] !== undefined && tokens[0] !== '|' && tokens[0] !== ')') words.push(term(tokens, context));
  return call(...words, ...piped);
}

function term(tokens: string[], context: Context): unknown {
  const token = tokens.shift() ?? '';
  if (token.startsWith('"')) return JSON.parse(token) as unknown;
  if (token.startsWith('.')) return lookUp(token, context);
  if (token !== '(') throw refused(`the word ${JSON.stringify(token)}`);
  const value = pipeline(tokens, context);
  if (tokens.shift() !== ')') throw refused('a bracket that is not closed');
  return value;
}

function evaluate(source: string, context: Context): unknown {
  const tokens = tokensOf(source);
  const value = pipeline(tokens, context);
  if (tokens.length > 0) throw refused(`what follows in {{ ${source.trim()} }}`);
  return value;
}

/** Text of one template with what is between double braces carried out. Fault `unsupported`. */
export function renderTemplate(template: string, context: Context): string {
  // White space before `{{-` and after `-}}` goes.
  const parts = template.split(/(\s*\{\{-.*?-\}\}\s*|\s*\{\{-.*?\}\}|\{\{.*?-\}\}\s*|\{\{.*?\}\})/s);
  /** Whether each `if` that is open holds, outermost first. */
  const open: boolean[] = [];
  let output = '';
  for (const part of parts) {
    const [, source] = /^\s*\{\{-?(.*?)-?\}\}\s*$/s.exec(part) ?? [];
    const isShown = !open.includes(false);
    const [word = '', ...rest] = source?.trim().split(/\s+/) ?? [];
    if (source === undefined) output += isShown ? part : '';
    else if (word === 'if') open.push(isShown ? !isEmpty(evaluate(rest.join(' '), context)) : false);
    else if (word === 'else' && rest.length === 0 && open.length > 0) open.push(!(open.pop() ?? false));
    else if (word === 'end' && open.length > 0) open.pop();
    else if (isShown) output += text(evaluate(source, context));
  }
  if (open.length > 0) throw refused('an if without its end');
  return output;
}

const read = (...path: readonly string[]): string => readFileSync(join(chartFolder, ...path), 'utf8');
/** The order in which Helm installs (helm.sh/helm, pkg/releaseutil/kind_sorter.go). */
const kinds = [
  'ServiceAccount',
  'ConfigMap',
  'CustomResourceDefinition',
  'ClusterRole',
  'ClusterRoleBinding',
  'Role',
  'RoleBinding',
  'DaemonSet',
  'Deployment',
];

function place(document: string): number {
  const { kind } = parseYaml(document) as { readonly kind: string };
  if (!kinds.includes(kind)) throw refused(`the kind ${kind}`);
  return kinds.indexOf(kind);
}

/** What `helm template --namespace kube-system` gives, documents with their comments, for changed values of the top level. */
export function renderChart(changes: Context = {}): string[] {
  const chart = parseYaml(read('Chart.yaml')) as { readonly version: string; readonly appVersion: string };
  const context = {
    Chart: { Version: chart.version, AppVersion: chart.appVersion },
    Release: { Namespace: 'kube-system', Name: 'causeway' },
    Values: { ...(parseYaml(read('values.yaml')) as Context), ...changes },
  };
  const documents = readdirSync(join(chartFolder, 'templates'))
    .filter((name) => name.endsWith('.yaml'))
    .toSorted()
    .flatMap((name) => renderTemplate(read('templates', name), context).trim().split('\n---\n'))
    .filter((document) => document !== '');
  return documents.toSorted((a, b) => place(a) - place(b));
}

export const manifestsFolder: string = join(import.meta.dirname, '..', 'packaging', 'kubernetes');

const file = (first: string, documents: readonly string[]): string =>
  `# ${first}\n# Made from packaging/helm/causeway by "npm run manifests": change it there.\n${documents.join('\n---\n')}\n`;

/** Files for kubectl: name → content. */
export function manifests(): Readonly<Record<string, string>> {
  return {
    'causeway.yaml': file(
      'Causeway as the network of a cluster. The address of the API server is to be replaced, see docs/kubernetes.md.',
      renderChart(),
    ),
    'causeway-calico.yaml': file(
      'Causeway as the network of a cluster by the model calico. The address of the API server is to be replaced, see docs/bgp.md.',
      renderChart({ model: 'calico' }),
    ),
    'network-attachment-definitions.yaml': file('Definitions of further networks of pods, where nobody has brought them yet.', [
      read('crds', 'network-attachment-definitions.yaml').trim(),
    ]),
    'causeway-uninstall.yaml': file(
      'Takes Causeway off every node of a cluster. See docs/kubernetes.md.',
      renderChart({ uninstall: true }),
    ),
  };
}
