/**
 * The order cards on the desk: which one is shown, what is typed in each, and the requests that
 * `draft.ts` asks for.
 */
import { api, Refused } from '../shared/api';
import type { Card, FieldName, Fields } from '../shared/shapes';
import { t } from '../shared/words.svelte';
import { chooseCard } from './desk';
import * as drafts from './draft';
import { forgetLocally, keepLocally, kept } from './kept';

const TYPING_MS = 3_000;

export interface CardsDesk {
  /** The cards that the server has open for this operator, in the order of the desk. */
  cards(): readonly Card[];
  /** The server has acknowledged the end of this card. */
  closed(id: string): void;
  say(words: string, tone: 'good' | 'bad' | 'plain'): void;
  /** The server does not know us any more. */
  loggedOut(): void;
}

export class Cards {
  open = $state.raw<Readonly<Record<string, drafts.Draft>>>({});
  shown = $state<string | null>(null);
  /** The Pickup field is to have the focus as soon as it is there. */
  wantPickup = $state(false);
  draft = $derived(this.shown ? (this.open[this.shown] ?? null) : null);

  #picked = false;
  #typedAt = 0;

  constructor(private readonly desk: CardsDesk) {}

  /** The server's cards have changed. */
  changed(): void {
    const cards = this.desk.cards();
    const next: Record<string, drafts.Draft> = {};
    for (const card of cards) {
      const had = this.open[card.id];
      next[card.id] = had ? drafts.told(had, card) : drafts.open(card, kept(card.id), Date.now());
    }
    for (const [id, gone] of Object.entries(this.open)) {
      if (id in next) continue;
      forgetLocally(id);
      if (gone.saving) this.desk.say(t('order.saved'), 'good');
    }
    this.open = next;
    this.#show();
  }

  /** A conversation has begun: its card comes up, and the first field is ready for typing. */
  answered(): void {
    this.#picked = false;
    this.#show();
    if (!this.#typing()) this.wantPickup = true;
  }

  pick(id: string): void {
    this.#picked = true;
    this.shown = id;
    this.wantPickup = true;
  }

  type(change: Partial<Record<FieldName, string>>): void {
    if (!this.draft) return;
    this.#typedAt = Date.now();
    const next = drafts.typed(this.draft, change, Date.now());
    this.#put(next);
    keepLocally(next.id, next.fields);
  }

  save(): void {
    const { draft } = this;
    if (!draft) return;
    if (!draft.fields.pickup.trim()) {
      this.desk.say(t('order.noPickup'), 'bad');
      this.wantPickup = true;
      return;
    }
    const [next, doing] = drafts.submit(draft, Date.now());
    this.#put(next);
    this.#do(next, doing);
  }

  tick(now: number): void {
    for (const draft of Object.values(this.open)) {
      const [next, doing] = drafts.tick(draft, now);
      if (next !== draft) this.#put(next);
      this.#do(next, doing);
    }
  }

  #show(): void {
    this.shown = chooseCard(this.desk.cards(), this.shown, this.#typing(), this.#picked);
  }

  #typing(): boolean {
    return Date.now() - this.#typedAt < TYPING_MS;
  }

  #put(draft: drafts.Draft): void {
    this.open = { ...this.open, [draft.id]: draft };
  }

  #do(draft: drafts.Draft, doing: drafts.Doing[]): void {
    for (const one of doing) {
      // A draft that could not be kept is still in this browser, and the next one carries it all.
      if (one.do === 'keep') void api.draft(draft.id, draft.fields).catch(() => null);
      else void this.#submit(draft.id, draft.fields);
    }
  }

  async #submit(id: string, fields: Fields): Promise<void> {
    let refused: string | null = null;
    try {
      const answer = await api.submit(id, fields, drafts.LATE_AFTER_MS);
      if (answer?.state === 'accepted') {
        this.desk.closed(id);
        return;
      }
    } catch (error) {
      if (error instanceof Refused && drafts.isFinal(error.status)) refused = error.message || t('order.refusedPlain');
      if (error instanceof Refused && error.status === 401) this.desk.loggedOut();
    }
    const draft = this.open[id];
    if (draft) this.#put(drafts.failed(draft, refused, Date.now()));
  }
}
