// Words that must not be in tracked files. The patterns are put together from parts so that this file passes itself.
const pattern = (...parts: string[]): RegExp => new RegExp(parts.join(''));

const forbidden: readonly { readonly what: string; readonly pattern: RegExp }[] = [
  { what: 'a registry', pattern: pattern('registry-1', '\\.docker') },
  { what: 'a registry', pattern: pattern('index', '\\.docker') },
  { what: 'a registry', pattern: pattern('\\b(gh', 'cr|qu', 'ay|g', 'cr|k8s\\.g', 'cr)\\.io\\b') },
  { what: 'a registry', pattern: pattern('registry', '\\.k8s\\.io') },
  { what: 'a registry', pattern: pattern('registry', '\\.npmjs') },
  { what: 'a path of one machine', pattern: pattern('(^|[^\\w.])/(ho', 'me|Users)/[a-z]') },
  { what: 'a path of one machine', pattern: pattern('(^|[^\\w.])/wo', 'rk/') },
  { what: 'a path of one machine', pattern: pattern('(^|[^\\w.])/tm', 'p/(brief|setup|bash)') },
  { what: 'a conflict marker', pattern: pattern('^(<{7}|>{7}) ') },
];

/** Lines `FILE:LINE: what: text`. The lock file must name where its packages came from and is left out. */
export function findForbidden(file: string, content: string): string[] {
  if (file === 'package-lock.json' || content.includes('\0')) return [];
  return content.split('\n').flatMap((line, index) => {
    const found = forbidden.find((rule) => rule.pattern.test(line));
    return found === undefined ? [] : [`${file}:${index + 1}: ${found.what}: ${line.trim().slice(0, 120)}`];
  });
}
