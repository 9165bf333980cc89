// Instructions of the kernel's virtual machine (linux/bpf.h, Documentation/bpf/standardization/instruction-set.rst) as plain
// values, and their encoding. Enough for small packet programs: no maps, no calls between functions, little-endian machines
// only (x86-64 and arm64 are). Pure.

export type Register = 'r0' | 'r1' | 'r2' | 'r3' | 'r4' | 'r5' | 'r6' | 'r7' | 'r8' | 'r9' | 'r10';
/** Bytes that a load or store moves. */
export type Width = 1 | 2 | 4 | 8;
type Operand = Register | number;

interface Encoded {
  readonly op: number;
  readonly dst?: Register;
  readonly src?: Register;
  readonly offset?: number;
  readonly immediate?: number;
  /** Where a jump goes. */
  readonly target?: string;
}
export type Instruction = Encoded | { readonly label: string };

const widths: Readonly<Record<Width, number>> = { 4: 0x00, 2: 0x08, 1: 0x10, 8: 0x18 };
const BPF_LDX_MEM = 0x61;
const BPF_ST_MEM = 0x62;
const BPF_STX_MEM = 0x63;
const BPF_ALU = 0x04;
const BPF_JMP32 = 0x06;
const BPF_JMP = 0x05;
const BPF_ALU64 = 0x07;
const BPF_X = 0x08;
const BPF_END_TO_BE = 0xdc;
const calculations = { add: 0x00, sub: 0x10, and: 0x50, lsh: 0x60, rsh: 0x70, mov: 0xb0 } as const;
const comparisons = { eq: 0x10, gt: 0x20, ge: 0x30, ne: 0x50, lt: 0xa0, le: 0xb0 } as const;

const operand = (value: Operand): Pick<Encoded, 'src' | 'immediate'> => (typeof value === 'number' ? { immediate: value } : { src: value });
const from = (value: Operand): number => (typeof value === 'number' ? 0 : BPF_X);

export const load = (width: Width, dst: Register, src: Register, offset: number): Instruction => ({
  op: BPF_LDX_MEM | widths[width],
  dst,
  src,
  offset,
});
export const store = (width: Width, dst: Register, offset: number, value: Operand): Instruction => ({
  op: (typeof value === 'number' ? BPF_ST_MEM : BPF_STX_MEM) | widths[width],
  dst,
  offset,
  ...operand(value),
});
export const compute = (what: keyof typeof calculations, dst: Register, value: Operand): Instruction => ({
  op: BPF_ALU64 | calculations[what] | from(value),
  dst,
  ...operand(value),
});
/** The lower 32 bits only; the upper ones become zero. */
export const compute32 = (what: keyof typeof calculations, dst: Register, value: Operand): Instruction => ({
  op: BPF_ALU | calculations[what] | from(value),
  dst,
  ...operand(value),
});
/** Swaps the lower 16 bits' bytes and clears the rest: network order to host order. */
export const swap16 = (dst: Register): Instruction => ({ op: BPF_END_TO_BE, dst, immediate: 16 });
/** The same with the lower 32 bits. */
export const swap32 = (dst: Register): Instruction => ({ op: BPF_END_TO_BE, dst, immediate: 32 });
/** Unsigned comparison of 64 bits. */
export const jump = (when: keyof typeof comparisons, dst: Register, value: Operand, target: string): Instruction => ({
  op: BPF_JMP | comparisons[when] | from(value),
  dst,
  target,
  ...operand(value),
});
/** Unsigned comparison of the lower 32 bits. */
export const jump32 = (when: keyof typeof comparisons, dst: Register, value: Operand, target: string): Instruction => ({
  op: BPF_JMP32 | comparisons[when] | from(value),
  dst,
  target,
  ...operand(value),
});
export const go = (target: string): Instruction => ({ op: BPF_JMP, target });
export const label = (name: string): Instruction => ({ label: name });

// struct __sk_buff and enum bpf_func_id, linux/bpf.h: what programs of ours read and call of them
export const skb = {
  length: 0,
  packetType: 4,
  protocol: 16,
  vlanPresent: 20,
  vlan: 24,
  ifindex: 40,
  data: 76,
  dataEnd: 80,
  gsoSize: 176,
} as const;
export const helpers = {
  vlanPush: 18,
  vlanPop: 19,
  redirect: 23,
  checksum: 28,
  changeType: 32,
  pullData: 39,
  fibLookup: 69,
  redirectPeer: 155,
} as const;

/** Helper number of linux/bpf.h; arguments in r1 to r5, result in r0, which are all gone afterwards. */
export const call = (helper: number): Instruction => ({ op: 0x85, immediate: helper });
export const exit: Instruction = { op: 0x95 };

const number = (register: Register | undefined): number => (register === undefined ? 0 : Number(register.slice(1)));

/** Eight bytes an instruction. Throws a RangeError for a jump to nowhere: the program is wrong. */
export function assemble(program: readonly Instruction[]): Uint8Array {
  const places = new Map<string, number>();
  let count = 0;
  for (const instruction of program) {
    if ('label' in instruction) places.set(instruction.label, count);
    else count++;
  }
  const bytes = new Uint8Array(count * 8);
  const view = new DataView(bytes.buffer);
  let place = 0;
  for (const instruction of program) {
    if ('label' in instruction) continue;
    const { op, dst, src, offset = 0, immediate = 0, target } = instruction;
    const goal = target === undefined ? undefined : places.get(target);
    if (target !== undefined && goal === undefined) throw new RangeError(`No label ${target}`);
    view.setUint8(place * 8, op);
    view.setUint8(place * 8 + 1, (number(src) << 4) | number(dst));
    view.setInt16(place * 8 + 2, goal === undefined ? offset : goal - place - 1, true);
    view.setInt32(place * 8 + 4, immediate | 0, true);
    place++;
  }
  return bytes;
}
