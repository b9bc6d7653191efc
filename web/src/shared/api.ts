/** The HTTP API in the words of the screens. */
import type { Fields, Session } from './shapes';

/** The server's refusal, or `status: 0` when it did not answer at all. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    words: string,
  ) {
    super(words);
    this.name = 'Refused';
  }
}

const ROOT = '/api/v1';
/** Longer than any answer the server gives to a person; then the line is taken for dead. */
const TIMEOUT_MS = 10_000;

async function ask<T>(method: string, path: string, body?: unknown, headers: Record<string, string> = {}, timeout = TIMEOUT_MS): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(ROOT + path, {
      method,
      credentials: 'same-origin',
      cache: 'no-store',
      headers: body === undefined ? headers : { 'Content-Type': 'application/json', ...headers },
      body: body === undefined ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(timeout),
    });
  } catch {
    throw new Refused(0, '');
  }
  const text = await answer.text().catch(() => '');
  let value: unknown = null;
  try {
    value = text ? JSON.parse(text) : null;
  } catch {
    value = null;
  }
  if (answer.ok) return value as T;
  const problem = (value ?? {}) as { detail?: string; title?: string };
  throw new Refused(answer.status, problem.detail ?? problem.title ?? '');
}

const at = encodeURIComponent;

export const api = {
  session: () => ask<Session>('GET', '/session'),
  logIn: (username: string, password: string) => ask<Session>('POST', '/session', { username, password }),
  logOut: () => ask<null>('DELETE', '/session'),
  state: (change: { state?: string; reason?: string; auto_answer?: boolean }) => ask<unknown>('PUT', '/me/state', change),
  call: (to: string) => ask<unknown>('POST', '/calls', { to }),
  control: (call: string, verb: 'hangup' | 'hold' | 'resume') => ask<unknown>('POST', `/calls/${at(call)}/${verb}`, {}),
  digits: (call: string, digits: string) => ask<unknown>('POST', `/calls/${at(call)}/dtmf`, { digits }),
  draft: (card: string, fields: Fields) => ask<unknown>('PUT', `/cards/${at(card)}`, { fields }),
  submit: (card: string, fields: Fields, timeout: number) =>
    ask<{ state?: string } | null>('POST', `/cards/${at(card)}/submit`, { fields }, { 'Idempotency-Key': card }, timeout),
  discard: (card: string, reason: string) => ask<unknown>('POST', `/cards/${at(card)}/discard`, { reason }),
};
