// The only file that uses FFI: the few calls of libc that Node lacks. Symbols are looked up in the running program, so
// glibc and musl both serve. A failed call becomes a Fault `kernel` with the errno's name; what fails often and by design
// (an empty non-blocking socket) has a form that does not throw. Constants are those of asm-generic, the same on x86-64
// and arm64.
import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import koffi from 'koffi';
import { Fault, isFault } from '#model/fault.ts';
import { type Family, familyOf, type Ip, ipToBigint } from '#model/ip.ts';

const program = koffi.load(null);
// union bpf_attr for BPF_PROG_LOAD (linux/bpf.h), as far as it is used.
const programLoad = koffi.struct('ProgramLoad', {
  type: 'uint32_t',
  count: 'uint32_t',
  instructions: 'const void *',
  license: 'const char *',
  logLevel: 'uint32_t',
  logSize: 'uint32_t',
  log: 'void *',
  kernelVersion: 'uint32_t',
  flags: 'uint32_t',
  name: koffi.array('char', 16),
});
// struct sock_fprog (linux/filter.h).
const filterProgram = koffi.struct('FilterProgram', { count: 'uint16_t', instructions: 'const void *' });
const c = {
  socket: program.func('int socket(int, int, int)'),
  bind: program.func('int bind(int, const void *, uint32_t)'),
  connect: program.func('int connect(int, const void *, uint32_t)'),
  listen: program.func('int listen(int, int)'),
  getsockname: program.func('int getsockname(int, _Out_ void *, _Inout_ uint32_t *)'),
  setsockopt: program.func('int setsockopt(int, int, int, const void *, uint32_t)'),
  attachFilter: program.func('int setsockopt(int, int, int, const FilterProgram *, uint32_t)'),
  recv: program.func('long recv(int, _Out_ void *, size_t, int)'),
  send: program.func('long send(int, const void *, size_t, int)'),
  fcntl: program.func('int fcntl(int, int, long)'),
  ioctl: program.func('int ioctl(int, unsigned long, _Inout_ void *)'),
  sigaction: program.func('int sigaction(int, const void *, _Out_ void *)'),
  epollCreate: program.func('int epoll_create1(int)'),
  epollControl: program.func('int epoll_ctl(int, int, int, const void *)'),
  epollWait: program.func('int epoll_wait(int, _Out_ void *, int, int)'),
  setns: program.func('int setns(int, int)'),
  unshare: program.func('int unshare(int)'),
  mount: program.func('int mount(const char *, const char *, const char *, unsigned long, const void *)'),
  umount2: program.func('int umount2(const char *, int)'),
  bpf: program.func('long syscall(long, int, const ProgramLoad *, uint32_t)'),
};

const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
const AF_PACKET = 17;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_ATTACH_FILTER = 26;
const SO_RCVTIMEO = 20;
const SO_SNDTIMEO = 21;
const IPPROTO_IP = 0;
const IPPROTO_UDP = 17;
const IPPROTO_IPV6 = 41;
const IPPROTO_RAW = 255;
const ethertypes: Readonly<Record<Family, number>> = { 4: 0x0800, 6: 0x86dd };
const IP_FREEBIND = 15;
const IPV6_V6ONLY = 26;
const IPV6_FREEBIND = 78;
const F_SETFL = 4;
const F_SETOWN = 8;
const F_SETSIG = 10;
const O_NONBLOCK = 0o4000;
const O_ASYNC = 0o20000;
const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLLIN = 1;
// struct epoll_event is packed on x86-64 only.
const epollEventBytes = process.arch === 'x64' ? 12 : 16;
const epollDataOffset = epollEventBytes - 8;
const MSG_DONTWAIT = 0x40;
const SIOCGIFINDEX = 0x8933;
/** IFNAMSIZ, with the NUL at the end. */
const linkNameBytes = 16;
export const CLONE_NEWNET = 0x40000000;
export const MS_BIND = 0x1000;
export const MS_REC = 0x4000;
export const MS_SHARED = 0x100000;
export const MNT_DETACH = 2;

const names = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));
names.set(constants.errno.EAGAIN, 'EAGAIN').set(constants.errno.EOPNOTSUPP, 'EOPNOTSUPP');
/** `EEXIST` for 17; `errno 999` for a number without a name. */
export const errnoName = (number: number): string => names.get(number) ?? `errno ${number}`;

/** `Cannot add route …: EEXIST (kernel text)`, code `kernel`. */
export function kernelFault(action: string, errno: string, text = ''): Fault {
  return new Fault('kernel', `Cannot ${action}: ${errno}${text === '' ? '' : ` (${text})`}`, { errno });
}

function checked(result: number, action: string): number {
  if (result < 0) throw kernelFault(action, errnoName(koffi.errno()));
  return result;
}

/** The socket, bound; closed again when it cannot be. `prepare` comes before, and ends it likewise. Fault `kernel`. */
function bound(fd: number, { address, what }: { address: Buffer; what: string }, prepare?: () => void): number {
  try {
    prepare?.();
    checked(c.bind(fd, address, address.length), `bind a ${what} socket`);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** struct sockaddr_ll of a link; `ethertype` 0 receives nothing. */
function linkAddress(index: number, ethertype = 0): Buffer {
  const address = Buffer.alloc(20);
  address.writeUInt16LE(AF_PACKET, 0);
  address.writeUInt16BE(ethertype, 2);
  address.writeInt32LE(index, 4);
  return address;
}

/** A netlink socket of the calling thread's namespace, bound to the multicast groups of a bit mask (RTMGRP_*). */
export function openNetlinkSocket(protocol: number, groups = 0): number {
  const fd = checked(c.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), 'open a netlink socket');
  const address = Buffer.alloc(12);
  address.writeUInt16LE(AF_NETLINK, 0);
  address.writeUInt32LE(groups, 8);
  return bound(fd, { address, what: 'netlink' });
}

/** A socket that sends whole Ethernet frames by the link with that index, and receives none (packet(7)). The caller owns it. */
export function openPacketSocket(index: number): number {
  const fd = checked(c.socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), 'open a packet socket');
  return bound(fd, { address: linkAddress(index), what: 'packet' });
}

/**
 * A socket that receives those frames of a family that a classic BPF program lets through, from the link with that index, and sends
 * whole frames by it (packet(7)). The filter is there before the first frame. The caller owns it.
 */
export function openFilteredPacketSocket(index: number, family: Family, filter: Buffer): number {
  const fd = checked(c.socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), 'open a packet socket');
  return bound(fd, { address: linkAddress(index, ethertypes[family]), what: 'packet' }, () => {
    const wanted = { count: filter.length / 8, instructions: filter };
    checked(c.attachFilter(fd, SOL_SOCKET, SO_ATTACH_FILTER, wanted, koffi.sizeof(filterProgram)), 'filter a packet socket');
  });
}

/**
 * A socket that is given a copy of those datagrams for this host that a classic BPF program lets through, when the host's packet filters
 * have let them in (raw(7)): of IPv4 with the IP header, of IPv6 without (RFC 3542). The caller owns it.
 */
export function openFilteredDatagramSocket(family: Family, filter: Buffer): number {
  const domain = family === 6 ? AF_INET6 : AF_INET;
  const fd = checked(c.socket(domain, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP), 'open a raw socket');
  const wanted = { count: filter.length / 8, instructions: filter };
  checked(c.attachFilter(fd, SOL_SOCKET, SO_ATTACH_FILTER, wanted, koffi.sizeof(filterProgram)), 'filter a raw socket');
  return fd;
}

/** Sends an IP packet, header included, the way that this host has to an address (raw(7)). The negative errno where it has none. */
export function transmitIp(packet: Buffer, to: Ip): number {
  const six = familyOf(to) === 6;
  const fd = checked(c.socket(six ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW), 'open a raw socket');
  try {
    const address = socketAddress(to, 0, 0);
    return c.connect(fd, address, address.length) < 0 ? -koffi.errno() : transmit(fd, packet);
  } finally {
    closeSync(fd);
  }
}

/** The port id (nl_pid) that the kernel gave to a bound netlink socket. */
export function netlinkPort(fd: number): number {
  const address = Buffer.alloc(12);
  checked(c.getsockname(fd, address, [address.length]), 'read the port of a netlink socket');
  return address.readUInt32LE(4);
}

export function setOption(fd: number, level: number, option: number, value: Buffer | number): void {
  const bytes = typeof value === 'number' ? Buffer.from(Int32Array.of(value).buffer) : value;
  checked(c.setsockopt(fd, level, option, bytes, bytes.length), `set socket option ${level}/${option}`);
}

/**
 * The index of a link in the namespace of a socket, undefined when there is none (netdevice(7)). Netlink would tell it too, but only
 * after all who are changing links anywhere on the machine.
 */
export function linkIndex(fd: number, name: string): number | undefined {
  // struct ifreq
  const request = Buffer.alloc(40);
  request.write(name, 0, linkNameBytes - 1);
  return c.ioctl(fd, SIOCGIFINDEX, request) < 0 ? undefined : request.readInt32LE(linkNameBytes);
}

/** Bytes received into `buffer`, or the negative errno. `wait: false` never blocks. Does not throw: it is a hot path. */
export function receive(fd: number, buffer: Buffer, options: { readonly wait: boolean }): number {
  const length = Number(c.recv(fd, buffer, buffer.length, options.wait ? 0 : MSG_DONTWAIT));
  return length < 0 ? -koffi.errno() : length;
}

/** Bytes sent, or the negative errno. */
export function transmit(fd: number, bytes: Buffer): number {
  const length = Number(c.send(fd, bytes, bytes.length, 0));
  return length < 0 ? -koffi.errno() : length;
}

/** Makes the descriptor raise `signal` for this process whenever it becomes readable, and never block (fcntl(2), F_SETSIG). */
export function raiseSignal(fd: number, signal: NodeJS.Signals): void {
  checked(c.fcntl(fd, F_SETOWN, process.pid), 'claim the signals of a socket');
  checked(c.fcntl(fd, F_SETSIG, constants.signals[signal]), 'choose the signal of a socket');
  checked(c.fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK), 'make a socket raise signals');
}

// struct sigaction, which begins with the handler in every libc, and is no longer than this.
const actionBytes = 256;
const ignored = Buffer.alloc(actionBytes);
ignored.writeUInt32LE(1, 0); // SIG_IGN

/** While `fn` runs the kernel throws that signal away, as if nobody waited for it; afterwards it does what it did before (sigaction(2)). */
export function ignoringSignal<T>(signal: NodeJS.Signals, fn: () => T): T {
  const before = Buffer.alloc(actionBytes);
  checked(c.sigaction(constants.signals[signal], ignored, before), `ignore ${signal}`);
  try {
    return fn();
  } finally {
    checked(c.sigaction(constants.signals[signal], before, Buffer.alloc(actionBytes)), `hear ${signal}`);
  }
}

/** An epoll instance (epoll(7)); the caller closes it. */
export const openPoll = (): number => checked(c.epollCreate(EPOLL_CLOEXEC), 'open an epoll instance');

/** Watches `fd` until it is closed. */
export function pollFor(poll: number, fd: number): void {
  const event = Buffer.alloc(epollEventBytes);
  event.writeUInt32LE(EPOLLIN, 0);
  event.writeInt32LE(fd, epollDataOffset);
  checked(c.epollControl(poll, EPOLL_CTL_ADD, fd, event), 'watch a socket');
}

const pollEvents = Buffer.alloc(64 * epollEventBytes);
/** At most 64 of the watched descriptors that have something to read or an error pending, without waiting. */
export function readable(poll: number): number[] {
  const count = Math.max(0, c.epollWait(poll, pollEvents, 64, 0));
  return Array.from({ length: count }, (_, index) => pollEvents.readInt32LE(index * epollEventBytes + epollDataOffset));
}

/**
 * A connected unix stream socket, for synchronous reads and writes that give up (EAGAIN) after two seconds. The caller owns
 * the descriptor. Fault `kernel`, with errno ENOENT or ECONNREFUSED when nobody listens at `path`.
 */
export function openUnixStream(path: string): number {
  const fd = checked(c.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), 'open a unix socket');
  try {
    const address = Buffer.alloc(110);
    address.writeUInt16LE(AF_UNIX, 0);
    // sun_path holds 108 bytes, the last one zero.
    if (address.write(path, 2, 107) < Buffer.byteLength(path)) throw kernelFault(`connect to ${path}`, 'ENAMETOOLONG');
    const timeout = Buffer.alloc(16);
    timeout.writeBigInt64LE(2n, 0);
    setOption(fd, SOL_SOCKET, SO_RCVTIMEO, timeout);
    setOption(fd, SOL_SOCKET, SO_SNDTIMEO, timeout);
    // A signal interrupts it while the listener is busy; a unix socket may then be connected again.
    while (c.connect(fd, address, address.length) < 0) {
      const errno = errnoName(koffi.errno());
      if (errno !== 'EINTR') throw kernelFault(`connect to ${path}`, errno);
    }
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Moves the calling thread into the network namespace behind `fd`. Only netns.ts may call this. */
export function enterNetns(fd: number): void {
  checked(c.setns(fd, CLONE_NEWNET), 'enter a network namespace');
}

/** Moves the calling thread into a new network namespace. Only netns.ts may call this. */
export function unshareNetns(): void {
  checked(c.unshare(CLONE_NEWNET), 'make a network namespace');
}

/** mount(2); returns the errno's name instead of throwing, since callers decide by it. */
export function mount(source: string, target: string, flags: number): string | undefined {
  return c.mount(source, target, 'none', flags, null) < 0 ? errnoName(koffi.errno()) : undefined;
}

/** umount2(2); returns the errno's name instead of throwing. */
export function unmount(target: string, flags: number): string | undefined {
  return c.umount2(target, flags) < 0 ? errnoName(koffi.errno()) : undefined;
}

const SYS_BPF = process.arch === 'arm64' ? 280 : 321;
const BPF_PROG_LOAD = 5;
const BPF_PROG_TYPE_SCHED_CLS = 3;

/**
 * Loads a program for tc filters (bpf(2), BPF_PROG_LOAD); the caller owns the descriptor. Fault `kernel`: EPERM without
 * CAP_BPF and CAP_NET_ADMIN, EINVAL or EACCES with the verifier's last words for a program that it refuses.
 */
export function loadFilterProgram(instructions: Uint8Array, name: string): number {
  const load = (log: Buffer | null): number =>
    Number(
      c.bpf(
        SYS_BPF,
        BPF_PROG_LOAD,
        {
          type: BPF_PROG_TYPE_SCHED_CLS,
          count: instructions.length / 8,
          instructions,
          // bpf_fib_lookup is for programs under the GPL or along with it only.
          license: 'Dual MIT/GPL',
          logLevel: log === null ? 0 : 1,
          logSize: log?.length ?? 0,
          log,
          kernelVersion: 0,
          flags: 0,
          name: name.slice(0, 15),
        },
        koffi.sizeof(programLoad),
      ),
    );
  // A signal that comes while the kernel verifies ends the attempt with EAGAIN.
  for (let attempt = 0; attempt < 5; attempt++) {
    const fd = load(null);
    if (fd >= 0) return fd;
    if (errnoName(koffi.errno()) !== 'EAGAIN') break;
  }
  const errno = errnoName(koffi.errno());
  const log = Buffer.alloc(256 * 1024);
  const fd = load(log);
  if (fd >= 0) return fd;
  throw kernelFault(`load program ${name}`, errno, log.toString('utf8').replace(/\0.*$/s, '').trim().split('\n').slice(-4).join('; '));
}

function socketAddress(ip: Ip, port: number, scope: number): Buffer {
  const six = familyOf(ip) === 6;
  const address = Buffer.alloc(six ? 28 : 16);
  address.writeUInt16LE(six ? AF_INET6 : AF_INET, 0);
  address.writeUInt16BE(port, 2);
  Buffer.from(
    ipToBigint(ip)
      .toString(16)
      .padStart(six ? 32 : 8, '0'),
    'hex',
  ).copy(address, six ? 8 : 4);
  if (six) address.writeUInt32LE(scope, 24);
  return address;
}

/** `scope` is the index of the link, needed only for link-local IPv6 addresses. */
export interface InetBinding {
  readonly ip: Ip;
  readonly port: number;
  readonly scope?: number;
}

function openInet(type: number, binding: InetBinding): number {
  const six = familyOf(binding.ip) === 6;
  const what = `${binding.ip} port ${binding.port}`;
  const fd = checked(c.socket(six ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), `open a socket for ${what}`);
  try {
    setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    // Free binding: the address may come to the namespace a moment after the listener.
    if (six) setOption(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1);
    else setOption(fd, IPPROTO_IP, IP_FREEBIND, 1);
    if (six) setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    const address = socketAddress(binding.ip, binding.port, binding.scope ?? 0);
    checked(c.bind(fd, address, address.length), `listen on ${what}`);
    if (type === SOCK_STREAM) checked(c.listen(fd, 511), `listen on ${what}`);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** A bound UDP socket of the calling thread's namespace, for `dgram`'s `bind({ fd })`. The caller owns the descriptor. */
export const openUdp = (binding: InetBinding): number => openInet(SOCK_DGRAM, binding);
/** A listening TCP socket of the calling thread's namespace, for `net`'s `listen({ fd })`. The caller owns the descriptor. */
export const openTcpListener = (binding: InetBinding): number => openInet(SOCK_STREAM, binding);

/**
 * Takes a port from all other programs of the host by a socket that is bound and nothing else: without sharing, and without
 * listening, so whoever still gets here is refused as if nobody were. The caller owns the descriptor. Fault `kernel` with
 * errno EADDRINUSE (somebody has it) or EADDRNOTAVAIL (no address of this host).
 */
export function holdPort(protocol: 'tcp' | 'udp', binding: InetBinding): number {
  try {
    return bindPort(protocol, binding);
  } catch (error) {
    if (protocol !== 'tcp' || !isFault(error, 'kernel') || error.errno !== 'EADDRINUSE') throw error;
    // Connections that ended within the last minute (TIME_WAIT) are in the way as well. Who listens is not put up with; beside
    // those the port can only be held so that others may share it.
    closeSync(openTcpListener(binding));
    return bindPort(protocol, binding, SO_REUSEADDR);
  }
}

function bindPort(protocol: 'tcp' | 'udp', { ip, port }: InetBinding, option?: number): number {
  const six = familyOf(ip) === 6;
  const type = (protocol === 'tcp' ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK;
  const fd = checked(c.socket(six ? AF_INET6 : AF_INET, type, 0), `open a socket for ${ip} port ${port}`);
  try {
    if (six) setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (option !== undefined) setOption(fd, SOL_SOCKET, option, 1);
    const address = socketAddress(ip, port, 0);
    checked(c.bind(fd, address, address.length), `take ${ip} port ${port}`);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

const trim = optional(() => program.func('int malloc_trim(size_t)'));

/** Gives free memory of malloc back to the system (malloc_trim(3)); nothing with a libc that has no such call. */
export function trimAllocations(): void {
  trim?.(0);
}

function optional<T>(symbol: () => T): T | undefined {
  try {
    return symbol();
  } catch {
    return undefined;
  }
}
