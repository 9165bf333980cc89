// How far this machine's clock is from a controller's. Certificates are only good for a time, so a clock that is wrong by
// hours keeps machines apart; both sides then say "certificate", and what has to be mended is the clock. Every answer of a
// controller says what time it is there (RFC 9110, 6.6.1), to the second.

/** Below this nobody needs to be told: certificates are good for an hour before they are made. */
export const toleratedSkewMs = 60_000;

/** Milliseconds by which this machine is ahead; negative: behind. Undefined when the header is absent or no date. */
export function skewOf(date: string | readonly string[] | undefined, now: number): number | undefined {
  const there = typeof date === 'string' ? Date.parse(date) : Number.NaN;
  // Half a second: the header leaves out what is less than one.
  return Number.isNaN(there) ? undefined : now - there - 500;
}

/**
 * The same, of a controller whose certificate cannot be believed because of the clock. Only for a sentence: whoever answers may
 * lie. Nothing is sent but the question. Undefined when nobody answers.
 */
export async function askSkew(url: string, now: () => number = Date.now): Promise<number | undefined> {
  // Rarely needed, so not loaded before.
  const { request } = await import('node:https');
  const { promise, resolve } = Promise.withResolvers<number | undefined>();
  const asked = request(new URL('/healthz', url), { rejectUnauthorized: false, agent: false, timeout: 3000 }, (response) => {
    response.resume();
    resolve(skewOf(response.headers.date, now()));
  });
  asked.once('timeout', () => asked.destroy());
  asked.once('close', () => resolve(undefined));
  asked.once('error', () => resolve(undefined));
  asked.end();
  return promise;
}

const units: readonly (readonly [ms: number, name: string])[] = [
  [86_400_000, 'd'],
  [3_600_000, 'h'],
  [60_000, 'min'],
  [1000, 's'],
];

/** `2 d 3 h ahead of`, in the two largest units. */
export function skewText(skewMs: number): string {
  let rest = Math.abs(skewMs);
  const parts: string[] = [];
  for (const [ms, name] of units) {
    const count = Math.floor(rest / ms);
    rest -= count * ms;
    if (count > 0 && parts.length < 2) parts.push(`${count} ${name}`);
    else if (parts.length > 0) break;
  }
  return `${parts.join(' ') || '0 s'} ${skewMs > 0 ? 'ahead of' : 'behind'}`;
}

/** What to do about it. */
export const clockAdvice = 'Set the clocks, best by NTP: timedatectl set-ntp true. Then everything goes on by itself';
