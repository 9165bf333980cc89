// The program's version, from package.json beside the sources.
import { readFileSync } from 'node:fs';

const found: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
export const version: string =
  typeof found === 'object' && found !== null && 'version' in found && typeof found.version === 'string' ? found.version : '0.0.0';
