// Elements of nft's sets and maps as one netlink transaction (linux/netfilter/nf_tables.h): what takes nft's language a second for a
// hundred thousand elements takes the kernel itself a third of that. Only what needs no arithmetic: the ranges of a set of ranges alone
// stand in the kernel as beginnings and ends between which nft keeps order, so of those nothing is encoded here.
import type { NftElement } from '#model/desired.ts';
import { atomsOf } from './nft-atoms.ts';
import { ElementForms, type SetShape } from './nft-forms.ts';
import { align, decodeAttributes, encodeMessage, type Message, text } from './netlink/codec.ts';
import type { Transaction } from './netlink/socket.ts';
import {
  NFNL_MSG_BATCH_BEGIN,
  NFNL_MSG_BATCH_END,
  NFNL_SUBSYS_NFTABLES,
  NFPROTO_INET,
  NFT_DATA_VERDICT,
  NFT_MSG_DELSETELEM,
  NFT_MSG_DESTROYSETELEM,
  NFT_MSG_NEWSETELEM,
  NFT_SET_CONCAT,
  NFT_SET_INTERVAL,
  NFTA_SET_DATA_TYPE,
  NFTA_SET_ELEM_LIST_ELEMENTS,
  NFTA_SET_ELEM_LIST_SET,
  NFTA_SET_ELEM_LIST_TABLE,
  NFTA_SET_FLAGS,
  NFTA_SET_KEY_TYPE,
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

  /** Adds an element; false when it is not understood. */
  element(element: { readonly key: string; readonly value: string | undefined }, forms: ElementForms): boolean {
    const blank = forms.blank(element.value);
    if (blank === undefined) return false;
    const at = this.#length;
    this.append(blank);
    return forms.fill(element, this.#bytes, at);
  }
}

/** False when one of the elements is not understood. */
function writeStep(writer: Writer, { verb, table, set, elements }: ElementStep, { shape, numbers }: Layout): boolean {
  const names = [text(NFTA_SET_ELEM_LIST_TABLE, table), text(NFTA_SET_ELEM_LIST_SET, set)];
  const flags = NLM_F_REQUEST | (verb === 'add' ? NLM_F_CREATE : 0);
  const forms = new ElementForms(shape);
  const isValued = verb === 'add';
  const begin = (): number => {
    const at = writer.length;
    numbers.last = at;
    writer.append(encodeMessage({ type: subsystem | types[verb], flags, sequence: numbers.next++, port: 0, body: family }));
    for (const name of names) writer.append(name);
    writer.begin(NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED);
    return at;
  };
  const end = (at: number): void => {
    writer.end();
    writer.endMessage(at);
  };
  let at = begin();
  const write = (key: string, value: string | undefined): boolean => {
    if (writer.length - at > mostListed) {
      end(at);
      at = begin();
    }
    return writer.element({ key, value: isValued ? value : undefined }, forms);
  };
  for (const { key, value, values } of elements) {
    if (values === undefined ? !write(key, value) : !everyOfRow(key, values, write)) return false;
  }
  end(at);
  return true;
}

/** As singly() of a row, without making elements of it. */
function everyOfRow(key: string, values: readonly string[], write: (key: string, value: string) => boolean): boolean {
  const head = `${key} . `;
  return values.every((value, index) => value === '' || write(head + String(index), value));
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
  const writer = new Writer(steps.reduce((sum, [{ elements }]) => elements.reduce((of, { values }) => of + (values?.length ?? 1), sum), 0));
  const numbers = { next: first + 1, last: 0 };
  writer.append(border(NFNL_MSG_BATCH_BEGIN, first));
  for (const [step, shape] of steps) if (!writeStep(writer, step, { shape, numbers })) return undefined;
  writer.flag(numbers.last, NLM_F_ACK);
  writer.append(border(NFNL_MSG_BATCH_END, numbers.next));
  return { bytes: writer.written, first, acknowledged: numbers.next - 1 };
}
