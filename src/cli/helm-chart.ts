// Renders packaging/helm/causeway, so that what kubectl is given comes from the chart and from nothing else. Neither Debian nor
// npm has Helm or its template language in a form that can be used here, so this reads the small part of it
// (pkg.go.dev/text/template, helm.sh/docs/chart_template_guide) that the chart keeps to, and refuses everything else.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { parse as parseYaml } from 'yaml';
import { Fault } from '#model/fault.ts';

export const chartFolder: string = join(import.meta.dirname, '..', '..', 'packaging', 'helm', 'causeway');

type Context = Readonly<Record<string, unknown>>;
const isContext = (value: unknown): value is Context => typeof value === 'object' && value !== null && !Array.isArray(value);

const text = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));

/** As Go's encoding/json writes it: keys in order, and nothing that HTML would take for its own. */
function json(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(json).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value).replaceAll(/[<>&]/g, (sign) => html[sign] ?? sign);
  const pairs = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return `{${pairs.map(([key, item]) => `${JSON.stringify(key)}:${json(item)}`).join(',')}}`;
}

/** Of Masterminds' semver what charts ask of a server: `>=1.30-0`, `<1.34-0`; the end makes versions before a release count, too. */
function isWithin(constraint: string, version: string): boolean {
  const [, sign, ...limit] = /^(>=|<)(\d+)\.(\d+)-0$/.exec(constraint) ?? [];
  const [, ...found] = /^v?(\d+)\.(\d+)(?:[.+-]|$)/.exec(version) ?? [];
  if (sign === undefined || found.length === 0) throw refused(`the comparison of ${version} with ${constraint}`);
  const [major = 0, minor = 0] = found.map((number, index) => Number(number) - Number(limit[index]));
  const isBefore = major < 0 || (major === 0 && minor < 0);
  return isBefore === (sign === '<');
}

const html: Readonly<Record<string, string>> = { '<': '\\u003c', '>': '\\u003e', '&': '\\u0026' };

const isEmpty = (value: unknown): boolean =>
  value === undefined ||
  value === null ||
  value === '' ||
  value === 0 ||
  value === false ||
  (typeof value === 'object' && Object.keys(value).length === 0);

/** As Helm's, but that `helm lint` lets be what is missing. */
function required(message: unknown, value: unknown): unknown {
  if (isEmpty(value)) throw new Fault('invalid', text(message));
  return value;
}

/** A value that came through a pipe is the last argument. */
const functions: Readonly<Record<string, (...values: readonly unknown[]) => unknown>> = {
  required,
  quote: (value) => JSON.stringify(text(value)),
  toJson: json,
  sha256sum: (value) => createHash('sha256').update(text(value)).digest('hex'),
  default: (fallback, value) => (isEmpty(value) ? fallback : value),
  not: isEmpty,
  eq: (one, other) => one === other,
  join: (separator, list) => (Array.isArray(list) ? list.map(text).join(text(separator)) : text(list)),
  omit: (value, ...keys) => (isContext(value) ? Object.fromEntries(Object.entries(value).filter(([key]) => !keys.includes(key))) : value),
  semverCompare: (constraint, version) => isWithin(text(constraint), text(version)),
  printf: (format, ...values) => values.reduce<string>((whole, value) => whole.replace('%s', () => text(value)), text(format)),
};

const refused = (what: string): Fault => new Fault('unsupported', `The chart's renderer does not know ${what}`);

function lookUp(path: string, context: Context): unknown {
  let value: unknown = context;
  for (const key of path.split('.').slice(1)) {
    if (!isContext(value) || !(key in value)) throw refused(`a value ${path}`);
    value = value[key];
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
  if (token.startsWith('"')) return v.parse(v.pipe(v.string(), v.parseJson()), token);
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

/** Whether it was one of the words that say what is shown. `open`: whether each `if` that is open holds, outermost first. */
function branches([word = '', ...rest]: readonly string[], open: boolean[], context: Context): boolean {
  const isShown = !open.includes(false);
  if (word === 'if') open.push(isShown && !isEmpty(evaluate(rest.join(' '), context)));
  else if (word === 'else' && rest.length === 0 && open.length > 0) open.push(!(open.pop() ?? false));
  else if (word === 'end' && open.length > 0) open.pop();
  else return false;
  return true;
}

/** Text of one template with what is between double braces carried out. Fault `unsupported`. */
export function renderTemplate(template: string, context: Context): string {
  // White space before `{{-` and after `-}}` goes.
  const parts = template.split(/(\s*\{\{-.*?-\}\}\s*|\s*\{\{-.*?\}\}|\{\{.*?-\}\}\s*|\{\{.*?\}\})/s);
  const open: boolean[] = [];
  let output = '';
  for (const part of parts) {
    const [, source] = /^\s*\{\{-?(.*?)-?\}\}\s*$/s.exec(part) ?? [];
    if (source !== undefined && branches(source.trim().split(/\s+/), open, context)) continue;
    if (open.includes(false)) continue;
    output += source === undefined ? part : text(evaluate(source, context));
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

const object = v.looseObject({ kind: v.string() });
interface About {
  readonly version: string;
  readonly appVersion: string;
}
const about: v.GenericSchema<unknown, About> = v.object({ version: v.string(), appVersion: v.string() });
const settings = v.record(v.string(), v.unknown());

function place(document: string): number {
  const { kind } = v.parse(object, parseYaml(document));
  if (!kinds.includes(kind)) throw refused(`the kind ${kind}`);
  return kinds.indexOf(kind);
}

/** As Helm lays values over others: objects key by key. */
const over = (base: Context, changes: Context): Context => ({
  ...base,
  ...Object.fromEntries(
    Object.entries(changes).map(([key, value]) => {
      const before = base[key];
      return [key, isContext(before) && isContext(value) ? over(before, value) : value];
    }),
  ),
});

/** Of the chart: its own version and Causeway's. */
export const chartAbout = (): About => v.parse(about, parseYaml(read('Chart.yaml')));

/** The oldest server that the files for kubectl are for as they are. */
const usualServer = '1.30.0';

/**
 * What `helm template --namespace kube-system` gives, documents with their comments, for changed values and a server of this version.
 * Faults: `unsupported`, `invalid`.
 */
export function renderChart(changes: Context = {}, kubeVersion: string = usualServer): string[] {
  const chart = chartAbout();
  const context = {
    Chart: { Version: chart.version, AppVersion: chart.appVersion },
    Release: { Namespace: 'kube-system', Name: 'causeway' },
    Capabilities: { KubeVersion: { Version: kubeVersion } },
    Values: over(v.parse(settings, parseYaml(read('values.yaml'))), changes),
  };
  const documents = readdirSync(join(chartFolder, 'templates'))
    .filter((name) => name.endsWith('.yaml'))
    .toSorted()
    .flatMap((name) => renderTemplate(read('templates', name), context).trim().split('\n---\n'))
    .filter((document) => document !== '');
  return documents.toSorted((a, b) => place(a) - place(b));
}
