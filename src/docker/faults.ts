// A Fault as dockerd passes it on. pkg/plugins/client.go (moby v26.1.5): any status but 200 makes the error text
// `<method>: <Err of the body>`, for both protocols, so a failed call carries the text under both names; with 200 the IPAM
// client reads `Error` only and the user sees no method. 404 is kept for unknown methods, because dockerd takes it as
// "not implemented" and carries on. HTTP errors are never retried by dockerd, lost connections are for about 30 seconds.
import { type FaultCode, isFault } from '#model/fault.ts';

const status: Readonly<Record<FaultCode, 400 | 403 | 409 | 500 | 503>> = {
  invalid: 400,
  'not-found': 400,
  exists: 409,
  conflict: 409,
  'in-use': 409,
  exhausted: 409,
  overlap: 409,
  unauthenticated: 403,
  forbidden: 403,
  unavailable: 503,
  timeout: 503,
  compacted: 503,
  unsupported: 400,
  kernel: 500,
  corrupt: 500,
  stale: 409,
  version: 500,
  internal: 500,
};

export interface PluginError {
  readonly status: (typeof status)[FaultCode];
  readonly body: { readonly Err: string; readonly Error: string };
}

/** What the user reads: the sentence, its code, and what to do. Unknown errors are not shown, they are in the log. */
export function pluginError(error: unknown): PluginError {
  if (!isFault(error)) return withText(500, 'causeway failed unexpectedly (internal). See the log of causeway agent');
  const hint = error.hint === undefined ? '' : `. ${error.hint}`;
  return withText(status[error.code], `${error.message} (${error.code})${hint}`);
}

const withText = (code: PluginError['status'], text: string): PluginError => ({ status: code, body: { Err: text, Error: text } });
