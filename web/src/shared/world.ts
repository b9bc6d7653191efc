/**
 * What the server says is so: the snapshot, and after it every event laid over it. Pure: the same
 * messages give the same world. The desk and the wallboard are two views of it.
 *
 * Invariant: a world holds only what is alive. An ended call or a closed card is not in it.
 */
import type { Call, Card, Customer, Message, Node, Operator, Queue, Snapshot, ToneKind, Trunk } from './shapes';

export interface World {
  /** False until the first snapshot. */
  ready: boolean;
  me: Operator | null;
  calls: Readonly<Record<string, Call>>;
  cards: Readonly<Record<string, Card>>;
  customers: Readonly<Record<string, Customer>>;
  operators: Readonly<Record<string, Operator>>;
  queues: Readonly<Record<string, Queue>>;
  trunks: Readonly<Record<string, Trunk>>;
  node: Node | null;
  /** Calls in which one direction has gone silent, by the server's ear, with its words for the cause. */
  silent: Readonly<Record<string, string>>;
  /** The last call that ended, for the words that stay on the screen after it. */
  ended: Call | null;
  /** Cards that were accepted here: a late event about one of them opens nothing. */
  closed: readonly string[];
  /** Server's clock minus ours, the best guess so far. */
  skew_ms: number | null;
}

const CLOSED_KEPT = 50;

export const nothing: World = {
  ready: false,
  me: null,
  calls: {},
  cards: {},
  customers: {},
  operators: {},
  queues: {},
  trunks: {},
  node: null,
  silent: {},
  ended: null,
  closed: [],
  skew_ms: null,
};

/** Lays one message over the world. `now` is our clock at its receipt. */
export function apply(before: World, message: Message, now: number): World {
  const world = withClock(before, message, now);
  const [noun] = message.type.split('.');
  switch (noun) {
    case 'reset':
      return message.snapshot ? fromSnapshot(world, message.snapshot) : world;
    case 'call':
      return withCall(world, message);
    case 'card':
      return withCard(world, message);
    case 'operator':
      return withOperator(world, message.operator);
    case 'queue':
      return isObject<Queue>(message.queue) ? { ...world, queues: put(world.queues, message.queue.name, message.queue) } : world;
    case 'trunk':
      return isObject<Trunk>(message.trunk) ? { ...world, trunks: put(world.trunks, message.trunk.name, message.trunk) } : world;
    case 'tone':
      return withTone(world, message.call, message.kind);
    case 'media':
      return withMedia(world, message);
    case 'node':
      return message.node ? { ...world, node: message.node } : world;
    default:
      return world;
  }
}

/** The call the operator is in, if any: the one the server names, else the one that names the operator. */
export function callOf(world: World, name: string): Call | null {
  const named = (world.me?.name === name ? world.me : world.operators[name])?.call;
  if (named && world.calls[named]) return world.calls[named];
  return Object.values(world.calls).find((call) => call.operator === name) ?? null;
}

function fromSnapshot(world: World, snapshot: Snapshot): World {
  const open = (snapshot.cards ?? []).filter(isOpen).filter((card) => !world.closed.includes(card.id));
  const customers: Record<string, Customer> = {};
  for (const card of open) {
    const known = card.customer ?? world.customers[card.id];
    if (known) customers[card.id] = known;
  }
  return {
    ...nothing,
    ready: true,
    me: snapshot.me ?? null,
    calls: by(snapshot.calls?.filter((call) => call.state !== 'ended'), (call) => call.id),
    cards: by(open, (card) => card.id),
    customers,
    operators: by(snapshot.operators, (operator) => operator.name),
    queues: by(snapshot.queues, (queue) => queue.name),
    trunks: by(snapshot.trunks, (trunk) => trunk.name),
    node: snapshot.node ?? null,
    closed: world.closed,
    skew_ms: world.skew_ms,
  };
}

function withCall(world: World, message: Message): World {
  const id = message.object?.id ?? message.call;
  if (!id) return world;
  const known = world.calls[id];
  if (message.type === 'call.ended' || message.object?.state === 'ended') {
    const last = message.object ? { ...message.object, tone: message.object.tone ?? known?.tone ?? null } : known;
    return { ...world, calls: without(world.calls, id), silent: without(world.silent, id), ended: last ?? world.ended };
  }
  if (!message.object) return world;
  // The tone is told apart from the call, and sooner; it ends with the answer.
  const tone = message.object.answered_at ? null : (message.object.tone ?? known?.tone ?? null);
  return { ...world, calls: put(world.calls, id, { ...message.object, tone }) };
}

function withCard(world: World, message: Message): World {
  const { card } = message;
  const id = isObject<Card>(card) ? card.id : card;
  if (!id) return world;
  if (message.type === 'card.accepted' || message.type === 'card.discarded' || (isObject<Card>(card) && !isOpen(card))) {
    return closeCard(world, id);
  }
  if (world.closed.includes(id)) return world;
  const customer = message.customer ?? (isObject<Card>(card) ? card.customer : null);
  return {
    ...world,
    cards: isObject<Card>(card) ? put(world.cards, id, card) : world.cards,
    customers: customer ? put(world.customers, id, customer) : world.customers,
  };
}

/** The card is done with: by the server's event, or by its answer to our own request. */
export function closeCard(world: World, id: string): World {
  return {
    ...world,
    cards: without(world.cards, id),
    customers: without(world.customers, id),
    closed: world.closed.includes(id) ? world.closed : [...world.closed, id].slice(-CLOSED_KEPT),
  };
}

function withOperator(world: World, operator: Message['operator']): World {
  if (!isObject<Operator>(operator)) return world;
  const { name } = operator;
  return {
    ...world,
    me: world.me?.name === name ? { ...world.me, ...operator } : world.me,
    operators: put(world.operators, name, operator),
  };
}

function withTone(world: World, id: string | null | undefined, kind: ToneKind | undefined): World {
  const call = id ? world.calls[id] : undefined;
  return call && kind ? { ...world, calls: put(world.calls, call.id, { ...call, tone: kind }) } : world;
}

function withMedia(world: World, message: Message): World {
  const id = message.call;
  if (!id) return world;
  if (message.type === 'media.silent') {
    const words = typeof message.cause === 'string' ? message.cause : '';
    return { ...world, silent: put(world.silent, id, words) };
  }
  if (message.type === 'media.recovered') return { ...world, silent: without(world.silent, id) };
  return world;
}

/**
 * The way here only ever makes `at` look older, so the greatest difference seen is nearest to the
 * truth, replays included.
 */
function withClock(world: World, message: Message, now: number): World {
  const at = message.at ? Date.parse(message.at) : NaN;
  if (Number.isNaN(at)) return world;
  const skew_ms = at - now;
  return world.skew_ms === null || skew_ms > world.skew_ms ? { ...world, skew_ms } : world;
}

const isOpen = (card: Card): boolean => card.state === 'draft' || card.state === 'saving';

function isObject<T extends object>(value: T | string | null | undefined): value is T {
  return typeof value === 'object' && value !== null;
}

function put<T>(map: Readonly<Record<string, T>>, key: string, value: T): Record<string, T> {
  return { ...map, [key]: value };
}

function without<T>(map: Readonly<Record<string, T>>, key: string): Readonly<Record<string, T>> {
  if (!(key in map)) return map;
  const { [key]: _gone, ...rest } = map;
  return rest;
}

function by<T>(list: T[] | undefined, key: (item: T) => string): Record<string, T> {
  return Object.fromEntries((list ?? []).map((item) => [key(item), item]));
}
