// Just enough of RFC 1035 to be somebody's upstream name server: one question, address records, no compression to read
// because a question's name has none.
export interface Question {
  readonly id: number;
  readonly flags: number;
  readonly name: string;
  readonly type: number;
  /** The question section as it came. */
  readonly bytes: Buffer;
}

const typeA = 1;
const typeAaaa = 28;

/** undefined when the bytes are no query with exactly one question. */
export function parseQuestion(message: Buffer): Question | undefined {
  if (message.length < 17 || message.readUInt16BE(4) !== 1) return undefined;
  const labels: string[] = [];
  let at = 12;
  for (;;) {
    const length = message[at];
    if (length === undefined || length > 63) return undefined;
    at += 1;
    if (length === 0) break;
    labels.push(message.toString('latin1', at, at + length).toLowerCase());
    at += length;
  }
  if (at + 4 > message.length) return undefined;
  return {
    id: message.readUInt16BE(0),
    flags: message.readUInt16BE(2),
    name: labels.join('.'),
    type: message.readUInt16BE(at),
    bytes: message.subarray(12, at + 4),
  };
}

/** Answers from a table of names; a name that is not in it does not exist, another type of a name that is has no data. */
export function answer(question: Question, zone: Readonly<Record<string, { readonly 4?: Buffer; readonly 6?: Buffer }>>): Buffer {
  const entry = zone[question.name];
  const address = question.type === typeA ? entry?.[4] : question.type === typeAaaa ? entry?.[6] : undefined;
  const header = Buffer.alloc(12);
  header.writeUInt16BE(question.id, 0);
  // QR, AA, RD as asked, RA; NXDOMAIN for an unknown name
  header.writeUInt16BE(0x8480 | (question.flags & 0x0100) | (entry === undefined ? 3 : 0), 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(address === undefined ? 0 : 1, 6);
  if (address === undefined) return Buffer.concat([header, question.bytes]);
  const record = Buffer.alloc(12);
  record.writeUInt16BE(0xc00c, 0); // the name of the question
  record.writeUInt16BE(question.type, 2);
  record.writeUInt16BE(1, 4);
  record.writeUInt32BE(60, 6);
  record.writeUInt16BE(address.length, 10);
  return Buffer.concat([header, question.bytes, record, address]);
}
