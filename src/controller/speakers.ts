// Which machine speaks for a host. A certificate can be copied, with a whole virtual machine or by a thief; what tells two
// machines apart is the kernel's boot id (random(4), /proc/sys/kernel/random/boot_id), which an agent sends with every request.
// The machine that reported last is the host's for as long as it goes on reporting; another one is refused meanwhile, so that
// the first goes on untouched. A machine that was started anew has another id and waits until the old one has fallen silent.
import * as v from 'valibot';
import { Fault } from '#model/fault.ts';
import type { Host } from '#model/resources.ts';
import type { Entry, Operation } from '#store/store.ts';
import type { HostPrincipal } from './access.ts';
import type { Control } from './control.ts';
import { keys } from './records.ts';

/** Three reports of an agent. */
export const silenceMs = 30_000;
/** Within this every agent that runs has found a controller that has started, and reported. */
const returnMs = 15_000;
/** How long it is told that another machine has tried. */
const tellMs = 600_000;

interface Speaker {
  readonly generation: number;
  readonly boot: string;
}
const schema: v.GenericSchema<unknown, Speaker> = v.object({ generation: v.number(), boot: v.string() });

export interface Speaking {
  readonly host: string;
  readonly generation: number;
  /** Absent: whoever asks does not say on which machine. */
  readonly boot?: string | undefined;
  /** Where the request comes from. */
  readonly address?: string | undefined;
}

interface Attempt {
  readonly at: number;
  readonly address: string | undefined;
}

const seconds = (ms: number): string => `${Math.max(0, Math.round(ms / 1000)) || 0} s`;

/** Of the hosts that this process serves. */
export class Speakers {
  readonly #startedAt: number;
  /** Refused attempts of other machines, the last one by host. */
  readonly #attempts = new Map<string, Attempt>();

  constructor(now: Date) {
    this.#startedAt = now.getTime();
  }

  /** Fault `stale` while another machine speaks for this incarnation of the host. From the mirror, so cheap enough for every request. */
  check(control: Pick<Control, 'mirror' | 'now' | 'log'>, speaking: Speaking): void {
    const record = readSpeaker(control.mirror.entry(keys.speaker(speaking.host)));
    this.#check(control, speaking, { record, seenAt: control.mirror.get('hosts', speaking.host)?.status.seenAt });
  }

  /** What a report of `self` writes; nothing while the same machine goes on. Fault `stale` as `check`, by what the store has now. */
  takeOver(
    control: Pick<Control, 'mirror' | 'now' | 'log'>,
    self: HostPrincipal,
    now: { entry: Entry | undefined; host: Host },
  ): Operation[] {
    const { boot, generation } = self;
    const record = readSpeaker(now.entry);
    if (boot === undefined || (record?.boot === boot && record.generation === generation)) return [];
    this.#check(control, self, { record, seenAt: now.host.status.seenAt });
    return [{ type: 'put', key: keys.speaker(self.host), value: { generation, boot }, expect: now.entry?.revision ?? 0 }];
  }

  /** What to tell of a host that goes on reporting although another machine has tried to speak for it. */
  double(now: Date, host: string): string | undefined {
    const attempt = this.#attempts.get(host);
    if (attempt === undefined) return undefined;
    const age = now.getTime() - attempt.at;
    if (age > tellMs) this.#attempts.delete(host);
    return age > tellMs ? undefined : doubleText(attempt, age);
  }

  #check(
    { now, log }: Pick<Control, 'now' | 'log'>,
    { host, generation, boot, address }: Speaking,
    { record, seenAt }: { record: Speaker | undefined; seenAt: string | undefined },
  ): void {
    if (record === undefined || record.generation !== generation || record.boot === boot) return;
    const at = now().getTime();
    const silent = at - Date.parse(seenAt ?? '');
    // After a start of the controller everybody has to come back first, the right one perhaps second.
    if (at - this.#startedAt > returnMs && !(silent <= silenceMs)) return;
    if (at - (this.#attempts.get(host)?.at ?? 0) > silenceMs) {
      log.warn({ host, address, boot }, 'Another machine shows the certificate of a host that is speaking already');
    }
    this.#attempts.set(host, { at, address });
    throw new Fault('stale', `Another machine speaks as host ${host}, last ${seconds(silent)} ago; two machines have one identity`, {
      hint: `If this machine was copied from the other, stop the agent, empty its state directory and join under another name with a new token. If it was only restarted, it is let in within ${seconds(silenceMs)}`,
    });
  }
}

/** Undefined also for one that cannot be read: the next report replaces it. */
export function readSpeaker(entry: Entry | undefined): Speaker | undefined {
  const { success, output } = v.safeParse(schema, entry?.value);
  return success ? output : undefined;
}

const doubleText = ({ address }: Attempt, ageMs: number): string =>
  `Another machine${address === undefined ? '' : ` (${address})`} has shown the certificate of this host ${seconds(ageMs)} ago and was refused: a copy of the machine, or a stolen key. Find and stop it; if it is not yours, revoke with "causeway certificate revoke" and join this host again with a new token`;
