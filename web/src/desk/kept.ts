/** Copies of unsaved cards on this machine, by card: they outlive a reload and a server that is away. */
import { FIELDS, type Fields } from '../shared/shapes';
import { empty } from './draft';

const PREFIX = 'tandem.card.';
const MOST = 20;

export function keepLocally(id: string, fields: Fields, store: Storage = localStorage): void {
  try {
    store.setItem(PREFIX + id, JSON.stringify({ at: Date.now(), fields }));
    trim(store);
  } catch {
    // A full or forbidden store costs only this second copy.
  }
}

export function kept(id: string, store: Storage = localStorage): Fields | null {
  try {
    const found = JSON.parse(store.getItem(PREFIX + id) ?? 'null') as { fields?: Partial<Fields> } | null;
    if (!found?.fields) return null;
    const fields = empty();
    for (const name of FIELDS) fields[name] = String(found.fields[name] ?? '');
    return fields;
  } catch {
    return null;
  }
}

export function forgetLocally(id: string, store: Storage = localStorage): void {
  store.removeItem(PREFIX + id);
}

/** Cards that were closed elsewhere leave their copies behind: the oldest go first. */
function trim(store: Storage): void {
  const ours: { key: string; at: number }[] = [];
  for (let i = 0; i < store.length; i += 1) {
    const key = store.key(i);
    if (key?.startsWith(PREFIX)) ours.push({ key, at: (JSON.parse(store.getItem(key) ?? '{}') as { at?: number }).at ?? 0 });
  }
  ours.sort((a, b) => b.at - a.at);
  for (const { key } of ours.slice(MOST)) store.removeItem(key);
}
