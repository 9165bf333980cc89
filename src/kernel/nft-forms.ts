// One element of an nft set as bytes. The elements of a set differ in their words alone, so each is a copy of a form with its words
// written where the form has zeros, and one whose key begins as the key before it takes that part over as bytes.
import type { Atom, Place } from './nft-atoms.ts';
import { align, attribute, nested, text, u32be } from './netlink/codec.ts';
import {
  NF_ACCEPT,
  NF_DROP,
  NFT_GOTO,
  NFT_JUMP,
  NFT_RETURN,
  NFTA_DATA_VALUE,
  NFTA_DATA_VERDICT,
  NFTA_LIST_ELEM,
  NFTA_SET_ELEM_DATA,
  NFTA_SET_ELEM_KEY,
  NFTA_SET_ELEM_KEY_END,
  NFTA_VERDICT_CHAIN,
  NFTA_VERDICT_CODE,
} from './netlink/uapi.ts';

/** How the elements of a set are laid out. */
export interface SetShape {
  readonly key: readonly Atom[];
  readonly value: readonly Atom[] | 'verdict' | undefined;
  /** Each part of a key has a first and a last. */
  readonly isOfRanges: boolean;
}

const separator = ' . ';
/** Before the words of a key: the headers of the element, of its key and of the key's data. */
const keyAt = 12;
/** Between two that are written one after the other: the headers of an attribute and of its data. */
const between = 8;

/** The parts of a concatenation begin at multiples of four bytes; one alone is as long as it is. */
const sizeOf = (atoms: readonly Atom[]): number =>
  atoms.length === 1 ? (atoms[0]?.size ?? 0) : atoms.reduce((sum, { size }) => sum + align(size), 0);

const blankData = (type: number, atoms: readonly Atom[]): Buffer => nested(type, attribute(NFTA_DATA_VALUE, Buffer.alloc(sizeOf(atoms))));

const verdicts: ReadonlyMap<string, number> = new Map([
  ['accept', NF_ACCEPT],
  ['drop', NF_DROP],
  ['return', NFT_RETURN],
  ['jump', NFT_JUMP],
  ['goto', NFT_GOTO],
]);

function verdictOf(value: string): Buffer | undefined {
  const [verdict = '', chain, ...more] = value.split(' ');
  const code = verdicts.get(verdict);
  if (code === undefined || more.length > 0 || (chain !== undefined) !== (verdict === 'jump' || verdict === 'goto')) return undefined;
  const leads = chain === undefined ? [] : [text(NFTA_VERDICT_CHAIN, chain)];
  return nested(NFTA_SET_ELEM_DATA, nested(NFTA_DATA_VERDICT, u32be(NFTA_VERDICT_CODE, code >>> 0), ...leads));
}

/** Writes the words of `spelled`, one for each of `atoms`, and moves `place` behind them; false when they are not understood. */
function writeWords(spelled: string, atoms: readonly Atom[], place: Place): boolean {
  let from = 0;
  for (let index = 0; index < atoms.length; index++) {
    const atom = atoms[index];
    const end = index === atoms.length - 1 ? spelled.length : spelled.indexOf(separator, from);
    if (atom === undefined || end < 0 || !atom.write(spelled.slice(from, end), place)) return false;
    place.at += align(atom.size);
    from = end + separator.length;
  }
  return true;
}

/** Of the elements of one set, which are written one after the other into the same bytes. */
export class ElementForms {
  readonly #shape: SetShape;
  /** Bytes of a key before its last word. */
  readonly #head: number;
  /** By verdict; else one for those with a value and one for those without. */
  readonly #forms = new Map<string | undefined, Buffer | undefined>();
  /** The key before, without its last word, and where it was written. */
  readonly #before = { words: '', at: 0 };

  constructor(shape: SetShape) {
    this.#shape = shape;
    this.#head = sizeOf(shape.key) - align(shape.key.at(-1)?.size ?? 0);
  }

  /** An element with zeros instead of words; undefined when such a value is not understood. */
  blank(value: string | undefined): Buffer | undefined {
    const name = value === undefined || this.#shape.value === 'verdict' ? value : '';
    const known = this.#forms.get(name);
    if (known !== undefined) return known;
    const form = this.#form(value);
    this.#forms.set(name, form);
    return form;
  }

  #form(value: string | undefined): Buffer | undefined {
    const { key, value: kind, isOfRanges } = this.#shape;
    const ends = isOfRanges ? [blankData(NFTA_SET_ELEM_KEY_END, key)] : [];
    const keyed = [blankData(NFTA_SET_ELEM_KEY, key), ...ends];
    if (value === undefined) return nested(NFTA_LIST_ELEM, ...keyed);
    const data = kind === 'verdict' ? verdictOf(value) : kind && blankData(NFTA_SET_ELEM_DATA, kind);
    return data && nested(NFTA_LIST_ELEM, ...keyed, data);
  }

  /** Writes the words of an element over the zeros that begin at `at`; false when they are not understood. */
  fill({ key, value }: { readonly key: string; readonly value: string | undefined }, bytes: Buffer, at: number): boolean {
    const { key: atoms, value: kind, isOfRanges } = this.#shape;
    if (!isOfRanges && key.includes('/')) return false;
    const place: Place = { bytes, at: at + keyAt, isEnd: false };
    if (!this.#writeKey(key, place)) return false;
    if (isOfRanges) {
      place.at += between;
      place.isEnd = true;
      if (!writeWords(key, atoms, place)) return false;
      place.isEnd = false;
    }
    if (value === undefined || kind === undefined || kind === 'verdict') return true;
    place.at += between;
    return !value.includes('/') && writeWords(value, kind, place);
  }

  #writeKey(key: string, place: Place): boolean {
    const atoms = this.#shape.key;
    const before = this.#before;
    const length = key.lastIndexOf(separator) + separator.length;
    const last = atoms.at(-1);
    if (atoms.length === 1 || last === undefined || length !== before.words.length || !key.startsWith(before.words)) {
      before.words = key.slice(0, length);
      before.at = place.at;
      return writeWords(key, atoms, place);
    }
    place.bytes.copyWithin(place.at, before.at, before.at + this.#head);
    place.at += this.#head;
    const isUnderstood = last.write(key.slice(length), place);
    place.at += align(last.size);
    return isUnderstood;
  }
}
