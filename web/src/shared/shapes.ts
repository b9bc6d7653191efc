/** The objects of the API and of the event feed, field for field as the server sends them. */

export type Role = 'operator' | 'supervisor' | 'admin';

export interface SipAccess {
  uri: string;
  username: string;
  password: string;
  /** A path on this host (`/sip`) or a whole `ws:`/`wss:` address. */
  websocket: string;
  expires_at: string;
}

export interface Session {
  user: string;
  role: Role;
  queues: string[];
  sip: SipAccess | null;
}

export type ToneKind = 'ringback' | 'busy' | 'congestion' | 'unavailable' | 'announcement';
export type CallState = 'arrived' | 'greeting' | 'queued' | 'ringing' | 'talking' | 'held' | 'ended';

export interface Quality {
  loss_in: number;
  loss_out: number;
  jitter_ms: number;
  rtt_ms: number;
  mos: number;
}

export interface Leg {
  id: string;
  party: 'trunk' | 'operator' | 'supervisor' | 'number';
  name: string;
  state: string;
  codec?: string | null;
  quality?: Quality | null;
  silent_in_ms?: number | null;
}

export interface Call {
  id: string;
  direction: 'in' | 'out' | 'bridge';
  state: CallState;
  caller: string | null;
  called: string | null;
  line?: string | null;
  trunk?: string | null;
  queue?: string | null;
  operator?: string | null;
  arrived_at: string;
  answered_at?: string | null;
  ended_at?: string | null;
  wait_ms?: number | null;
  talk_ms?: number | null;
  result?: string | null;
  cause?: { q850?: number; sip?: number; words?: string } | null;
  tone?: ToneKind | null;
  card?: string | null;
  legs?: Leg[];
}

export type OperatorState = 'available' | 'ringing' | 'talking' | 'wrap_up' | 'paused' | 'offline';

export interface Operator {
  name: string;
  state: OperatorState;
  reason?: string | null;
  since: string;
  queues?: string[];
  skills?: string[];
  call?: string | null;
  phone?: 'registered' | 'lost' | 'none';
  microphone?: 'ok' | 'silent' | 'none';
  calls_today?: number;
  talk_ms_today?: number;
  /** The server answers for the operator when a call is assigned; absent means yes. */
  auto_answer?: boolean;
}

export interface Queue {
  name: string;
  waiting: number;
  longest_wait_ms: number;
  callers?: { call: string; caller: string | null; place: number; since: string; priority: number }[];
  operators?: Partial<Record<OperatorState, number>>;
  today?: {
    offered: number;
    answered: number;
    abandoned: number;
    short_abandoned?: number;
    /** A share, 0…1; null before the first call. */
    service_level?: number | null;
    asa_ms?: number | null;
    aht_ms?: number | null;
  };
}

export interface Trunk {
  name: string;
  kind: 'gateway' | 'provider' | 'peer';
  state: 'up' | 'down' | 'full' | 'disabled';
  registered_from?: string | null;
  channels: number;
  busy: number;
  last_error?: string | null;
  asr?: number | null;
  false_answers?: number | null;
}

export const FIELDS = ['pickup', 'destination', 'when', 'class', 'comment'] as const;
export type FieldName = (typeof FIELDS)[number];
export type Fields = Record<FieldName, string>;

export interface Customer {
  name?: string | null;
  blocked?: boolean;
  orders?: { id: string; at: string; pickup: string; destination: string; state: string }[];
}

export interface Card {
  id: string;
  call: string | null;
  caller: string | null;
  operator: string | null;
  state: 'draft' | 'saving' | 'accepted' | 'discarded';
  fields: Partial<Record<FieldName, string | null>>;
  order?: string | null;
  created_at: string;
  customer?: Customer | null;
}

export interface Node {
  name: string;
  role: 'single' | 'primary' | 'standby';
  epoch?: number;
  protected?: boolean;
  since?: string;
  why?: string;
  version?: string;
  calls?: number;
  uptime_ms?: number;
}

export interface Snapshot {
  me?: Operator | null;
  calls?: Call[];
  cards?: Card[];
  operators?: Operator[];
  queues?: Queue[];
  trunks?: Trunk[];
  node?: Node | null;
}

/** One message of the event feed. Which nouns are there depends on `type`. */
export interface Message {
  type: string;
  seq?: number;
  at?: string;
  call?: string | null;
  object?: Call | null;
  operator?: Operator | string | null;
  queue?: Queue | string | null;
  trunk?: Trunk | string | null;
  card?: Card | string | null;
  customer?: Customer | null;
  kind?: ToneKind;
  node?: Node | null;
  snapshot?: Snapshot;
  [more: string]: unknown;
}
