// The record of every certificate that was issued to a host, which is also the revocation list: `certificates/<serial>`.
// Records are forgotten once the certificate has expired, because then TLS refuses it by itself.
import { Fault } from '#model/fault.ts';
import type { Entry, Operation } from '#store/store.ts';
import { certificateRecord, type CertificateRecord } from '#api/answers.ts';
import { parseAnswer } from '#api/parse.ts';
import { canonicalSerial, type Issued } from './ca.ts';
import { type Control, transact } from './control.ts';
import { fieldsOf, keys, toJson } from './records.ts';

/** Each entry is read once; it is looked at with every request. */
const known = new WeakMap<Entry, CertificateRecord>();

function read(entry: Entry): CertificateRecord {
  const record = known.get(entry) ?? parseAnswer(certificateRecord, fieldsOf(entry.value), 'a certificate record');
  known.set(entry, record);
  return record;
}

export function certificateOf(control: Pick<Control, 'mirror'>, serial: string): CertificateRecord | undefined {
  const entry = control.mirror.entry(keys.certificate(serial));
  return entry === undefined ? undefined : read(entry);
}

export const listCertificates = (control: Pick<Control, 'mirror'>): CertificateRecord[] => control.mirror.entries('certificates').map(read);

export const recordCertificate = (issued: Issued, host: string, generation: number): Operation => ({
  type: 'put',
  key: keys.certificate(issued.serial),
  value: { serial: issued.serial, host, generation, issuedAt: issued.issuedAt, expiresAt: issued.expiresAt },
  expect: 0,
});

/** Revokes what a host holds of generations before `current`, and forgets what has expired. The mirror may lack the newest. */
export function revokeAllOf(control: Control, host: string, current: number = Infinity): Operation[] {
  const now = control.now();
  return control.mirror.entries('certificates').flatMap((entry): Operation[] => {
    const record = read(entry);
    if (Date.parse(record.expiresAt) <= now.getTime()) return [{ type: 'delete', key: entry.key }];
    if (record.host !== host || record.generation >= current || record.revokedAt !== undefined) return [];
    return [{ type: 'put', key: entry.key, value: toJson({ ...record, revokedAt: now.toISOString() }) }];
  });
}

/** `serial` in whatever spelling (openssl prints upper case, colons and leading zeros). Revoking twice is success. Fault `not-found`. */
export async function revokeCertificate(control: Control, serial: string): Promise<void> {
  await transact(control, async () => {
    const entry = await control.store.get(keys.certificate(canonicalSerial(serial)));
    if (entry === undefined) throw new Fault('not-found', `No certificate ${serial}`);
    const record = read(entry);
    const operation: Operation = {
      type: 'put',
      key: entry.key,
      value: toJson({ ...record, revokedAt: control.now().toISOString() }),
      expect: entry.revision,
    };
    return { operations: record.revokedAt === undefined ? [operation] : [], answer: () => undefined };
  });
}
