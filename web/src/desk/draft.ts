/**
 * One order card in the operator's hands. Pure: inputs and a clock in, a new draft and things to do out.
 *
 *     editing ──submit──▶ saving ──acknowledged──▶ (gone)
 *        ▲                 │  ▲ back-off
 *        └──refused────────┘  └─ no answer in 3 s: "not saved, retrying"
 *
 * Invariant: what was typed is never lost and never overwritten by the server; the card leaves only on
 * the server's acknowledgement, and every attempt carries the same key.
 */
import { FIELDS, type Card, type FieldName, type Fields } from '../shared/shapes';

export const KEEP_AFTER_MS = 400;
export const LATE_AFTER_MS = 3_000;
const FIRST_RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 10_000;

export interface Draft {
  id: string;
  fields: Fields;
  /** The operator has typed here: the server's fields no longer count. */
  touched: boolean;
  /** When the typed text is due to be kept on the server. */
  keepAt: number | null;
  saving: null | {
    since: number;
    attempt: number;
    /** A request is on its way. */
    asked: boolean;
    /** When to ask again. */
    againAt: number | null;
  };
  /** Why the server refused the order, in words; the operator has to change something. */
  refusal: string | null;
}

export type Doing = { do: 'keep' } | { do: 'submit'; attempt: number };
export type Phase = 'editing' | 'saving' | 'retrying' | 'refused';

export const empty = (): Fields => Object.fromEntries(FIELDS.map((name) => [name, ''])) as Fields;

export function fieldsOf(card: Card): Fields {
  const fields = empty();
  for (const name of FIELDS) fields[name] = card.fields[name] ?? '';
  return fields;
}

/** A card that the server calls `saving` was submitted before a reload: it is asked again if nothing comes. */
export function open(card: Card, kept: Fields | null, now: number): Draft {
  const saving = card.state === 'saving' ? { since: now, attempt: 1, asked: true, againAt: now + LATE_AFTER_MS } : null;
  return { id: card.id, fields: kept ?? fieldsOf(card), touched: kept !== null, keepAt: null, saving, refusal: null };
}

/** The server's card has changed. */
export function told(draft: Draft, card: Card): Draft {
  return draft.touched ? draft : { ...draft, fields: fieldsOf(card) };
}

export function typed(draft: Draft, change: Partial<Record<FieldName, string>>, now: number): Draft {
  if (draft.saving) return draft;
  return { ...draft, fields: { ...draft.fields, ...change }, touched: true, keepAt: now + KEEP_AFTER_MS, refusal: null };
}

export function submit(draft: Draft, now: number): [Draft, Doing[]] {
  if (draft.saving) return [draft, []];
  const saving = { since: now, attempt: 1, asked: true, againAt: null };
  return [{ ...draft, saving, keepAt: null, refusal: null, touched: true }, [{ do: 'submit', attempt: 1 }]];
}

/**
 * The answer to a submit that was not an acknowledgement: `refused` means the order itself is wrong, so
 * asking again is useless; else (no answer, server error, "not yet") it is asked again later.
 */
export function failed(draft: Draft, refused: string | null, now: number): Draft {
  if (!draft.saving) return draft;
  if (refused !== null) return { ...draft, saving: null, refusal: refused };
  const wait = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** (draft.saving.attempt - 1));
  return { ...draft, saving: { ...draft.saving, asked: false, againAt: now + wait } };
}

export function tick(draft: Draft, now: number): [Draft, Doing[]] {
  if (draft.saving) {
    const { againAt, attempt, since } = draft.saving;
    if (againAt === null || now < againAt) return [draft, []];
    const saving = { since, attempt: attempt + 1, asked: true, againAt: null };
    return [{ ...draft, saving }, [{ do: 'submit', attempt: saving.attempt }]];
  }
  if (draft.keepAt !== null && now >= draft.keepAt) return [{ ...draft, keepAt: null }, [{ do: 'keep' }]];
  return [draft, []];
}

export function phase(draft: Draft, now: number): Phase {
  if (draft.refusal !== null) return 'refused';
  if (!draft.saving) return 'editing';
  const stumbled = draft.saving.attempt > 1 || !draft.saving.asked;
  return stumbled || now - draft.saving.since >= LATE_AFTER_MS ? 'retrying' : 'saving';
}

/** A status of the server's that no repetition can mend. */
export function isFinal(status: number): boolean {
  return status >= 400 && status < 500 && ![401, 408, 409, 425, 429].includes(status);
}
