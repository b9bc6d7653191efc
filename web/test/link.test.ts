import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Link, socketAddress, waitBefore, type Line, type LinkStatus } from '../src/shared/link';
import type { Message } from '../src/shared/shapes';

class FakeLine implements Line {
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: (() => void) | null = null;
  closed = false;
  constructor(readonly address: string) {}
  close(): void {
    this.closed = true;
  }
  say(message: Message): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
}

describe('the event feed', () => {
  let lines: FakeLine[];
  let heard: Message[];
  let status: LinkStatus;
  let link: Link;
  const newest = (): FakeLine => lines[lines.length - 1] as FakeLine;

  beforeEach(() => {
    vi.useFakeTimers({ now: 0 });
    lines = [];
    heard = [];
    link = new Link('ws://host/api/v1/events', (message) => heard.push(message), (next) => (status = next), {
      open: (address) => {
        const line = new FakeLine(address);
        lines.push(line);
        return line;
      },
      now: () => Date.now(),
      random: () => 1,
    });
    link.start();
  });

  afterEach(() => {
    link.stop();
    vi.useRealTimers();
  });

  it('begins without a number and takes the one of the snapshot', () => {
    expect(newest().address).toBe('ws://host/api/v1/events');
    newest().say({ type: 'reset', seq: 40, snapshot: {} });
    newest().onclose?.();
    vi.advanceTimersByTime(3_500);
    expect(newest().address).toBe('ws://host/api/v1/events?after=40');
  });

  it('passes a message on once', () => {
    newest().say({ type: 'reset', seq: 1 });
    newest().say({ type: 'call.arrived', seq: 2 });
    newest().say({ type: 'call.arrived', seq: 2 });
    newest().say({ type: 'call.arrived', seq: 1 });
    newest().say({ type: 'call.ended', seq: 3 });
    expect(heard.map((one) => one.seq)).toEqual([1, 2, 3]);
  });

  it('follows a reset back to a smaller number', () => {
    newest().say({ type: 'reset', seq: 900 });
    newest().say({ type: 'reset', seq: 5 });
    newest().say({ type: 'call.arrived', seq: 6 });
    expect(heard).toHaveLength(3);
  });

  it('shows its age from five seconds of silence and opens a new line after six', () => {
    newest().say({ type: 'reset', seq: 1 });
    expect(status.state).toBe('live');
    vi.advanceTimersByTime(5_500);
    expect(status.state).toBe('stale');
    const first = newest();
    vi.advanceTimersByTime(1_000);
    expect(status.state).toBe('lost');
    expect(first.closed).toBe(true);
    vi.advanceTimersByTime(3_500);
    expect(lines).toHaveLength(2);
    newest().say({ type: 'ping' });
    expect(status.state).toBe('live');
  });

  it('stays live as long as the server pings', () => {
    for (let n = 0; n < 10; n += 1) {
      newest().say({ type: 'ping' });
      vi.advanceTimersByTime(2_000);
    }
    expect(status.state).toBe('live');
    expect(lines).toHaveLength(1);
  });

  it('gives up a line that never says anything', () => {
    vi.advanceTimersByTime(10_000);
    expect(lines.length).toBeGreaterThan(1);
    expect(status.state).not.toBe('live');
  });

  it('ignores what an abandoned line still says', () => {
    const first = newest();
    const late = first.onmessage;
    vi.advanceTimersByTime(10_000);
    late?.({ data: JSON.stringify({ type: 'call.arrived', seq: 1 }) });
    expect(heard).toEqual([]);
  });

  it('survives what is not JSON', () => {
    newest().onmessage?.({ data: '{' });
    newest().onmessage?.({ data: new ArrayBuffer(1) });
    newest().onmessage?.({ data: '"x"' });
    expect(heard).toEqual([]);
  });

  it('hurries when the network comes back', () => {
    newest().onclose?.();
    link.hurry();
    expect(lines).toHaveLength(2);
  });

  it('waits by chance, up to three seconds first and never over ten', () => {
    expect([1, 2, 3, 9].map((n) => waitBefore(n, 1))).toEqual([3_000, 6_000, 10_000, 10_000]);
    expect(waitBefore(5, 0)).toBe(0);
  });

  it('makes a WebSocket address of a path', () => {
    expect(socketAddress('/sip', { protocol: 'https:', host: 'tandem.example' })).toBe('wss://tandem.example/sip');
    expect(socketAddress('sip', { protocol: 'http:', host: '127.0.0.1:8080' })).toBe('ws://127.0.0.1:8080/sip');
    expect(socketAddress('wss://other/sip', { protocol: 'http:', host: 'x' })).toBe('wss://other/sip');
  });
});
