/**
 * The event feed: one WebSocket, kept open. The only file that knows it.
 *
 * The server speaks at least every two seconds (`ping`), so silence means a dead line: the age is
 * shown from five seconds on, and at six the line is opened again from the last number heard.
 * Invariant: a message is passed on once, in order; after a gap the server repeats or resets.
 */
import type { Message } from './shapes';

export const STALE_MS = 5_000;
export const DEAD_MS = 6_000;
const FIRST_WAIT_MS = 3_000;
const LONGEST_WAIT_MS = 10_000;
const TICK_MS = 500;

export type LinkState = 'connecting' | 'live' | 'stale' | 'lost';

export interface LinkStatus {
  state: LinkState;
  /** How long nothing has been heard. */
  age_ms: number;
  /** Attempts since the line was last open. */
  attempts: number;
}

/** What of a WebSocket is used here: tests bring their own. */
export interface Line {
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: (() => void) | null;
  close(): void;
}

export interface LinkParts {
  open(address: string): Line;
  now(): number;
  random(): number;
}

/** The wait before the n-th attempt (from 1): spread out, so that a whole shift does not return at once. */
export function waitBefore(attempt: number, random: number): number {
  const ceiling = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (attempt - 1));
  return Math.round(random * ceiling);
}

export class Link {
  #seq: number | null = null;
  #line: Line | null = null;
  #heardAt: number;
  #openedAt = 0;
  #attempts = 0;
  #retryAt: number | null = null;
  #heard = false;
  #timer: ReturnType<typeof setInterval> | undefined;
  #last = '';

  constructor(
    private readonly address: string,
    private readonly onMessage: (message: Message) => void,
    private readonly onStatus: (status: LinkStatus) => void,
    private readonly parts: LinkParts,
  ) {
    this.#heardAt = parts.now();
  }

  start(): void {
    this.#heardAt = this.parts.now();
    this.#connect();
    this.#timer = setInterval(() => this.tick(), TICK_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#drop();
  }

  /** The network is back: do not wait for the next attempt. */
  hurry(): void {
    if (this.#retryAt !== null) this.#retryAt = this.parts.now();
    this.tick();
  }

  /** The watchdog; called twice a second. */
  tick(): void {
    const now = this.parts.now();
    if (this.#line && now - Math.max(this.#heardAt, this.#openedAt) > DEAD_MS) {
      this.#drop();
      this.#later();
    }
    if (this.#retryAt !== null && now >= this.#retryAt) this.#connect();
    this.#tell();
  }

  #connect(): void {
    this.#retryAt = null;
    this.#openedAt = this.parts.now();
    const after = this.#seq === null ? '' : `?after=${this.#seq}`;
    const line = this.parts.open(this.address + after);
    this.#line = line;
    line.onmessage = (event) => {
      if (line === this.#line) this.#take(event.data);
    };
    line.onclose = () => {
      if (line !== this.#line) return;
      this.#line = null;
      this.#later();
      this.#tell();
    };
  }

  #take(data: unknown): void {
    const message = read(data);
    if (!message) return;
    this.#heardAt = this.parts.now();
    this.#heard = true;
    this.#attempts = 0;
    if (message.type === 'reset') this.#seq = message.seq ?? this.#seq;
    else if (message.seq !== undefined) {
      if (this.#seq !== null && message.seq <= this.#seq) return;
      this.#seq = message.seq;
    }
    this.onMessage(message);
    this.#tell();
  }

  #later(): void {
    this.#attempts += 1;
    this.#retryAt = this.parts.now() + waitBefore(this.#attempts, this.parts.random());
  }

  #drop(): void {
    const line = this.#line;
    this.#line = null;
    if (!line) return;
    line.onmessage = null;
    line.onclose = null;
    line.close();
  }

  #tell(): void {
    const age_ms = this.parts.now() - this.#heardAt;
    const state: LinkState = !this.#heard ? 'connecting' : age_ms > DEAD_MS ? 'lost' : age_ms > STALE_MS ? 'stale' : 'live';
    const key = `${state} ${this.#attempts} ${state === 'live' ? '' : Math.floor(age_ms / 1000)}`;
    if (key === this.#last) return;
    this.#last = key;
    this.onStatus({ state: this.#attempts > 1 && !this.#heard ? 'lost' : state, age_ms, attempts: this.#attempts });
  }
}

function read(data: unknown): Message | null {
  if (typeof data !== 'string') return null;
  try {
    const value: unknown = JSON.parse(data);
    return typeof value === 'object' && value !== null && typeof (value as Message).type === 'string' ? (value as Message) : null;
  } catch {
    return null;
  }
}

/** The same host by WebSocket; a whole address stays what it is. */
export function socketAddress(pathOrAddress: string, place: { protocol: string; host: string } = location): string {
  if (/^wss?:/i.test(pathOrAddress)) return pathOrAddress;
  const scheme = place.protocol === 'https:' ? 'wss' : 'ws';
  return `${scheme}://${place.host}${pathOrAddress.startsWith('/') ? '' : '/'}${pathOrAddress}`;
}

export function browserParts(): LinkParts {
  return { open: (address) => new WebSocket(address) as unknown as Line, now: () => performance.now(), random: () => Math.random() };
}
