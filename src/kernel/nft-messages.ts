// Elements of nft's sets and maps as one netlink transaction (linux/netfilter/nf_tables.h): what takes nft's language a second for a
// hundred thousand elements takes the kernel itself a third of that. Only what needs no arithmetic: the ranges of a set of ranges alone
// stand in the kernel as beginnings and ends between which nft keeps order, so of those nothing is encoded here.
import type { NftElement } from '#model/desired.ts';
import { type Atom, atomsOf } from './nft-atoms.ts';
import { align, decodeAttributes, encodeMessage, type Message, text, u32be } from './netlink/codec.ts';
import type { Transaction } from './netlink/socket.ts';
import {
  NF_ACCEPT,
  NF_DROP,
  NFNL_MSG_BATCH_BEGIN,
  NFNL_MSG_BATCH_END,
  NFNL_SUBSYS_NFTABLES,
  NFPROTO_INET,
  NFT_DATA_VERDICT,
  NFT_GOTO,
  NFT_JUMP,
  NFT_MSG_DELSETELEM,
  NFT_MSG_DESTROYSETELEM,
  NFT_MSG_NEWSETELEM,
  NFT_RETURN,
  NFT_SET_CONCAT,
  NFT_SET_INTERVAL,
  NFTA_DATA_VALUE,
  NFTA_DATA_VERDICT,
  NFTA_LIST_ELEM,
  NFTA_SET_DATA_TYPE,
  NFTA_SET_ELEM_DATA,
  NFTA_SET_ELEM_KEY,
  NFTA_SET_ELEM_KEY_END,
  NFTA_SET_ELEM_LIST_ELEMENTS,
  NFTA_SET_ELEM_LIST_SET,
  NFTA_SET_ELEM_LIST_TABLE,
  NFTA_SET_FLAGS,
  NFTA_SET_KEY_TYPE,
  NFTA_VERDICT_CHAIN,
  NFTA_VERDICT_CODE,
  NLA_F_NESTED,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_REQUEST,
} from './netlink/uapi.ts';

/** What to do with elements of one set. `destroy`: absent already is success, which kernels before 6.3 do not know. */
export interface ElementStep {
  readonly verb: 'add' | 'delete' | 'destroy';
  readonly table: string;
  readonly set: string;
  readonly elements: readonly NftElement[];
}

/** How the elements of a set are laid out. */
export interface SetShape {
  readonly key: readonly Atom[];
  readonly value: readonly Atom[] | 'verdict' | undefined;
  /** Each part of a key has a first and a last. */
  readonly isOfRanges: boolean;
}

const types = { add: NFT_MSG_NEWSETELEM, delete: NFT_MSG_DELSETELEM, destroy: NFT_MSG_DESTROYSETELEM } as const;
/** The upper byte of message types. */
export const subsystem: number = NFNL_SUBSYS_NFTABLES << 8;
/** struct nfgenmsg of family inet. */
export const family: Buffer = Buffer.of(NFPROTO_INET, 0, 0, 0);
/** A list of elements is an attribute, whose length is a number of sixteen bits. */
const mostListed = 60_000;
/** Bytes of an element of the maps of services, IPv4. */
const usualElement = 56;

/** Of a message NFT_MSG_NEWSET; undefined: the elements of such a set are not encoded here. */
export function shapeOf(message: Message): SetShape | undefined {
  const attributes = decodeAttributes(message.body.subarray(4));
  const number = (type: number): number => attributes.get(type)?.readUInt32BE(0) ?? 0;
  const isOfRanges = (number(NFTA_SET_FLAGS) & NFT_SET_INTERVAL) !== 0;
  if (isOfRanges && (number(NFTA_SET_FLAGS) & NFT_SET_CONCAT) === 0) return undefined;
  const key = atomsOf(number(NFTA_SET_KEY_TYPE));
  const valueType = number(NFTA_SET_DATA_TYPE);
  const value = valueType === NFT_DATA_VERDICT ? 'verdict' : valueType === 0 ? undefined : atomsOf(valueType);
  if (key === undefined || (valueType !== 0 && value === undefined)) return undefined;
  return { key, value, isOfRanges };
}

/** The parts of a concatenation begin at multiples of four bytes; one alone is as long as it is. */
const sizeOf = (atoms: readonly Atom[]): number =>
  atoms.length === 1 ? (atoms[0]?.size ?? 0) : atoms.reduce((sum, { size }) => sum + align(size), 0);

const verdicts: ReadonlyMap<string, number> = new Map([
  ['accept', NF_ACCEPT],
  ['drop', NF_DROP],
  ['return', NFT_RETURN],
  ['jump', NFT_JUMP],
  ['goto', NFT_GOTO],
]);

/** Bytes of netlink, in one buffer that grows. */
class Writer {
  #bytes: Buffer;
  #length = 0;
  /** Where the length of an attribute that is open is to be written. */
  readonly #open: number[] = [];

  /** With room for about so many elements. */
  constructor(elements: number) {
    this.#bytes = Buffer.alloc(2048 + elements * usualElement);
  }

  get length(): number {
    return this.#length;
  }

  get written(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }

  /** Where `size` zeros now are. */
  reserve(size: number): number {
    const at = this.#length;
    this.#length += size;
    if (this.#length > this.#bytes.length) this.#bytes = Buffer.concat([this.#bytes], Math.max(2 * this.#bytes.length, this.#length));
    return at;
  }

  append(bytes: Buffer): void {
    const at = this.reserve(bytes.length);
    this.#bytes.set(bytes, at);
  }

  begin(type: number): void {
    const at = this.reserve(4);
    this.#bytes.writeUInt16LE(type, at + 2);
    this.#open.push(at);
  }

  end(): void {
    const at = this.#open.pop() ?? 0;
    this.#bytes.writeUInt16LE(this.#length - at, at);
    this.reserve(align(this.#length) - this.#length);
  }

  /** Sets the length of the message that began there. */
  endMessage(at: number): void {
    this.#bytes.writeUInt32LE(this.#length - at, at);
  }

  /** Adds flags to those of the message that began there. */
  flag(at: number, flags: number): void {
    this.#bytes.writeUInt16LE(this.#bytes.readUInt16LE(at + 6) | flags, at + 6);
  }

  /** An attribute of an attribute that is of these parts; false when they are not understood. */
  data(type: number, parts: { readonly atoms: readonly Atom[]; readonly words: readonly string[]; readonly isEnd: boolean }): boolean {
    const { atoms, words, isEnd } = parts;
    if (words.length !== atoms.length) return false;
    this.begin(type | NLA_F_NESTED);
    this.begin(NFTA_DATA_VALUE);
    let at = this.reserve(sizeOf(atoms));
    for (let index = 0; index < atoms.length; index++) {
      const atom = atoms[index];
      if (atom?.write(words[index] ?? '', { bytes: this.#bytes, at, isEnd }) !== true) return false;
      at += align(atom.size);
    }
    this.end();
    this.end();
    return true;
  }
}

function writeVerdict(writer: Writer, value: string): boolean {
  const [verdict = '', chain, ...more] = value.split(' ');
  const code = verdicts.get(verdict);
  if (code === undefined || more.length > 0 || (chain !== undefined) !== (verdict === 'jump' || verdict === 'goto')) return false;
  writer.begin(NFTA_SET_ELEM_DATA | NLA_F_NESTED);
  writer.begin(NFTA_DATA_VERDICT | NLA_F_NESTED);
  writer.append(u32be(NFTA_VERDICT_CODE, code >>> 0));
  if (chain !== undefined) writer.append(text(NFTA_VERDICT_CHAIN, chain));
  writer.end();
  writer.end();
  return true;
}

const separator = ' . ';

/** False when the element is not understood. */
function writeElement(writer: Writer, { key, value }: Pick<NftElement, 'key' | 'value'>, shape: SetShape): boolean {
  if (!shape.isOfRanges && key.includes('/')) return false;
  writer.begin(NFTA_LIST_ELEM | NLA_F_NESTED);
  const words = key.split(separator);
  if (!writer.data(NFTA_SET_ELEM_KEY, { atoms: shape.key, words, isEnd: false })) return false;
  if (shape.isOfRanges && !writer.data(NFTA_SET_ELEM_KEY_END, { atoms: shape.key, words, isEnd: true })) return false;
  if (value !== undefined) {
    if (shape.value === undefined || value.includes('/')) return false;
    const isUnderstood =
      shape.value === 'verdict'
        ? writeVerdict(writer, value)
        : writer.data(NFTA_SET_ELEM_DATA, { atoms: shape.value, words: value.split(separator), isEnd: false });
    if (!isUnderstood) return false;
  }
  writer.end();
  return true;
}

/** False when one of the elements is not understood. */
function writeStep(writer: Writer, { verb, table, set, elements }: ElementStep, { shape, numbers }: Layout): boolean {
  const names = [text(NFTA_SET_ELEM_LIST_TABLE, table), text(NFTA_SET_ELEM_LIST_SET, set)];
  const flags = NLM_F_REQUEST | (verb === 'add' ? NLM_F_CREATE : 0);
  for (let index = 0; index < elements.length;) {
    const at = writer.length;
    numbers.last = at;
    writer.append(encodeMessage({ type: subsystem | types[verb], flags, sequence: numbers.next++, port: 0, body: family }));
    for (const name of names) writer.append(name);
    writer.begin(NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED);
    for (const most = writer.length + mostListed; index < elements.length && writer.length < most; index++) {
      const element = elements[index];
      if (element === undefined || !writeElement(writer, verb === 'add' ? element : { key: element.key }, shape)) return false;
    }
    writer.end();
    writer.endMessage(at);
  }
  return true;
}

interface Layout {
  readonly shape: SetShape;
  readonly numbers: {
    next: number;
    /** Where the last message of elements began. */
    last: number;
  };
}

/** A batch begins and ends with messages that say for which subsystem it is. */
const border = (type: number, sequence: number): Buffer =>
  encodeMessage({ type, flags: NLM_F_REQUEST, sequence, port: 0, body: Buffer.of(0, 0, 0, NFNL_SUBSYS_NFTABLES) });

/** One transaction of all steps, each with its set's shape, its messages numbered from `first`; undefined when something is not understood. */
export function encodeSteps(steps: readonly (readonly [ElementStep, SetShape])[], first: number): Transaction | undefined {
  const writer = new Writer(steps.reduce((sum, [{ elements }]) => sum + elements.length, 0));
  const numbers = { next: first + 1, last: 0 };
  writer.append(border(NFNL_MSG_BATCH_BEGIN, first));
  for (const [step, shape] of steps) if (!writeStep(writer, step, { shape, numbers })) return undefined;
  writer.flag(numbers.last, NLM_F_ACK);
  writer.append(border(NFNL_MSG_BATCH_END, numbers.next));
  return { bytes: writer.written, first, acknowledged: numbers.next - 1 };
}
