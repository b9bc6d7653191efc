/**
 * The operator's desk as a view of the world: what is going on, who is on the line, what can be done.
 * Pure; the screen only draws what `look` returns.
 *
 * Invariant: the server's call state leads. The browser's own phone is believed only about calls that
 * the feed cannot tell of, because the feed is down or has not spoken of them yet.
 */
import type { LinkState } from '../shared/link';
import type { Call, Card, Operator, ToneKind } from '../shared/shapes';
import { callOf, type World } from '../shared/world';

export type Mode = 'offline' | 'paused' | 'available' | 'ringing' | 'dialling' | 'carrier' | 'talking' | 'held' | 'wrap_up';

/** What the desk knows of a SIP session, without knowing SIP. */
export interface Line {
  /** Tandem's id of the call, from `X-Tandem-Call`; else the SIP one. */
  call: string;
  /** `call` is Tandem's id. */
  named: boolean;
  from: string;
  queue: string | null;
  autoAnswer: boolean;
  state: 'ringing' | 'answering' | 'up';
  since: number;
}

export interface Look {
  mode: Mode;
  call: Call | null;
  /** The SIP session of that call. */
  line: Line | null;
  /** The other party's number. */
  number: string | null;
  via: string | null;
  /** When this began, in our clock; null where nothing is counted. */
  since: number | null;
  tone: ToneKind | null;
  /** The operator has to take the call himself. */
  toAnswer: boolean;
  canHangUp: boolean;
  canHold: boolean;
  canResume: boolean;
  canDial: boolean;
  canBeAvailable: boolean;
  canPause: boolean;
}

/** Tones after which nobody will answer. */
export const FAILING: readonly ToneKind[] = ['busy', 'congestion', 'unavailable'];

export function look(world: World, name: string, lines: readonly Line[], feed: LinkState, dialling: string | null): Look {
  const me = meIn(world, name);
  const call = callOf(world, name);
  const line = call ? (lines.find((one) => one.call === call.id) ?? lines.find((one) => !one.named) ?? null) : (lines.find((one) => trusted(one, world, feed)) ?? null);
  const mode = modeOf(me, call, line, dialling, world.ended);
  const busy = call !== null || line !== null || mode === 'dialling';
  const skew = world.skew_ms ?? 0;
  return {
    mode,
    call,
    line,
    number: numberOf(world, call, line, mode, dialling),
    via: call?.queue ?? call?.line ?? line?.queue ?? call?.trunk ?? null,
    since: sinceOf(me, call, line, mode, skew),
    tone: mode === 'dialling' || mode === 'carrier' ? (call?.tone ?? null) : null,
    toAnswer: mode === 'ringing' && line?.state === 'ringing' && !line.autoAnswer,
    canHangUp: busy && mode !== 'ringing',
    canHold: mode === 'talking' && call !== null,
    canResume: mode === 'held',
    canDial: !busy && (mode === 'available' || mode === 'paused' || mode === 'wrap_up'),
    canBeAvailable: !busy && (mode === 'paused' || mode === 'wrap_up' || mode === 'offline'),
    canPause: !busy && (mode === 'available' || mode === 'wrap_up'),
  };
}

/**
 * SIP sessions that the server does not know any more (a CANCEL that crossed our answer leaves one):
 * their calls are over. A young one is spared, since its INVITE may be faster than the feed; so is the
 * tone that follows a refused call.
 */
export function ghosts(world: World, name: string, lines: readonly Line[], feed: LinkState, now: number): Line[] {
  if (!world.ready || feed !== 'live') return [];
  return lines.filter((line) => {
    if (world.calls[line.call] || (!line.named && callOf(world, name))) return false;
    const grace = world.ended?.id === line.call ? AFTER_END_MS : BEFORE_FEED_MS;
    const from = world.ended?.id === line.call ? Math.max(line.since, endedAt(world)) : line.since;
    return now - from > grace;
  });
}

export const AFTER_END_MS = 6_000;
export const BEFORE_FEED_MS = 4_000;

/** The cards on the desk, the one of the running call first, then the newest. */
export function cardsOf(world: World, name: string): Card[] {
  const call = callOf(world, name);
  return Object.values(world.cards)
    .filter((card) => card.operator === null || card.operator === undefined || card.operator === name)
    .sort((a, b) => rank(b, call) - rank(a, call) || b.created_at.localeCompare(a.created_at) || b.id.localeCompare(a.id));
}

/** Which card to show: the running call's, unless the operator is in the middle of a word in another. */
export function chooseCard(cards: readonly Card[], shown: string | null, typing: boolean, picked: boolean): string | null {
  const still = shown !== null && cards.some((card) => card.id === shown);
  if (still && (typing || picked)) return shown;
  return cards[0]?.id ?? null;
}

export function meIn(world: World, name: string): Operator | null {
  return world.me?.name === name ? world.me : (world.operators[name] ?? world.me);
}

function modeOf(me: Operator | null, call: Call | null, line: Line | null, dialling: string | null, ended: Call | null): Mode {
  if (call) {
    if (call.state === 'held') return 'held';
    if (call.direction === 'out' && !call.answered_at) return call.tone && FAILING.includes(call.tone) ? 'carrier' : 'dialling';
    return call.state === 'talking' ? 'talking' : 'ringing';
  }
  if (line) return line.state === 'up' ? 'talking' : 'ringing';
  if (dialling !== null) return 'dialling';
  switch (me?.state) {
    case 'available':
    case 'paused':
    case 'wrap_up':
      return me.state;
    // The operator's state and the call's own event come one after the other: the next message mends it.
    case 'ringing':
    case 'talking':
      return ended !== null && me.call === ended.id ? 'wrap_up' : me.state;
    default:
      return 'offline';
  }
}

function numberOf(world: World, call: Call | null, line: Line | null, mode: Mode, dialling: string | null): string | null {
  const other = (one: Call): string | null => (one.direction === 'out' ? one.called : one.caller);
  if (call) return other(call);
  if (line) return line.from;
  if (dialling !== null) return dialling;
  return mode === 'wrap_up' && world.ended ? other(world.ended) : null;
}

function sinceOf(me: Operator | null, call: Call | null, line: Line | null, mode: Mode, skew: number): number | null {
  const ours = (time: string | null | undefined): number | null => (time ? Date.parse(time) - skew : null);
  if (call) {
    if (mode === 'talking' || mode === 'held') return ours(call.answered_at) ?? ours(call.arrived_at);
    // How long it has rung here matters; how long the caller has waited stands beside it.
    if (mode === 'ringing' && me?.state === 'ringing') return ours(me.since);
    return ours(call.arrived_at);
  }
  if (line) return line.since;
  return mode === 'dialling' || mode === 'offline' ? null : ours(me?.since);
}

const trusted = (line: Line, world: World, feed: LinkState): boolean =>
  feed !== 'live' || !world.ready || (world.ended?.id !== line.call && !(line.call in world.calls));

const rank = (card: Card, call: Call | null): number => (call && (card.call === call.id || call.card === card.id) ? 1 : 0);

const endedAt = (world: World): number => (world.ended?.ended_at ? Date.parse(world.ended.ended_at) - (world.skew_ms ?? 0) : 0);
