/**
 * One operator's shift: the only place where feed, phone, sound, cards and API meet. It holds the
 * desk's state and carries out what the pure files decide.
 */
import { api, Refused } from '../shared/api';
import { browserParts, Link, socketAddress, type LinkStatus } from '../shared/link';
import type { Message, Session, SipAccess } from '../shared/shapes';
import { told as named, t } from '../shared/words.svelte';
import { apply, closeCard, nothing, type World } from '../shared/world';
import { Cards } from './cards.svelte';
import { cardsOf, FAILING, ghosts, look, meIn, type Line } from './desk';
import { endsNow } from './keys';
import { Phone, type PhoneState } from './phone';
import { isSpeech, MicClosed, micGranted, Sound, type MicTrouble } from './sound';

const TICK_MS = 250;
const METER_MS = 100;
const REGISTER_WITHIN_MS = 10_000;
const SNAPSHOT_WITHIN_MS = 3_000;
const MIC_SILENT_MS = 4_000;
const CALLER_SILENT_MS = 3_000;
const NOTE_MS = 6_000;
const DIALLING_MS = 8_000;
/** Even a quiet room is louder; only a dead or muted microphone gives true zeros. */
const DEAD_AIR = 1e-6;
const ON_SHIFT = 'tandem.shift';

export interface Note {
  words: string;
  tone: 'good' | 'bad' | 'plain';
  until: number;
}

export class Shift {
  /** The operator. */
  name = $state('');
  world = $state.raw<World>(nothing);
  feed = $state.raw<LinkStatus>({ state: 'connecting', age_ms: 0, attempts: 0 });
  phoneState = $state<PhoneState>('off');
  lines = $state.raw<Line[]>([]);
  voice = $state.raw<MediaStream | null>(null);
  started = $state(false);
  step = $state<null | 'sound' | 'phone' | 'ready'>(null);
  micTrouble = $state<MicTrouble | null>(null);
  trouble = $state('');
  muted = $state(false);
  level = $state(0);
  micSilent = $state(false);
  callerSilent = $state(false);
  micLost = $state(false);
  voiceBlocked = $state(false);
  dialling = $state<string | null>(null);
  note = $state.raw<Note | null>(null);
  now = $state(Date.now());

  #session: Session;
  #link: Link;
  #phone: Phone;
  #sound: Sound;
  #timers: ReturnType<typeof setInterval>[] = [];
  #endPressed: number | null = null;
  #micHeardAt = 0;
  #packets: { count: number; at: number } | null = null;
  #diallingUntil = 0;
  #wasTalking = false;
  #onGone: () => void;

  look = $derived(look(this.world, this.name, this.lines, this.feed.state, this.dialling));
  me = $derived(meIn(this.world, this.name));
  cardList = $derived(cardsOf(this.world, this.name));
  cards = new Cards({
    cards: () => this.cardList,
    closed: (id) => this.#close(id),
    say: (words, tone) => this.say(words, tone),
    loggedOut: () => void this.#credentials(),
  });
  card = $derived(this.cardList.find((card) => card.id === this.cards.shown) ?? null);
  customer = $derived(this.card ? (this.world.customers[this.card.id] ?? null) : null);
  autoAnswer = $derived(this.me?.auto_answer ?? true);

  constructor(session: Session, onGone: () => void) {
    this.#session = session;
    this.#onGone = onGone;
    this.name = session.user;
    this.#link = new Link(
      socketAddress('/api/v1/events'),
      (message) => this.#heard(message),
      (status) => this.#feedIs(status),
      browserParts(),
    );
    this.#sound = new Sound(() => void this.#headsetPulled());
    this.#phone = new Phone(
      {
        state: (state) => (this.phoneState = state),
        lines: (lines) => this.#linesAre(lines),
        voice: (stream) => (this.voice = stream),
        wanted: (call) => void this.#answerByItself(call),
        credentials: () => this.#credentials(),
      },
      () => this.#sound.stream,
    );
  }

  // ── the shift ────────────────────────────────────────────────────────────────────────────────

  begin(): void {
    this.#link.start();
    this.#timers = [setInterval(() => this.#tick(), TICK_MS), setInterval(() => this.#meter(), METER_MS), setInterval(() => void this.#listen(), 1000)];
    addEventListener('online', this.#online);
    if (sessionStorage.getItem(ON_SHIFT) === this.name) {
      void micGranted().then((granted) => (granted ? this.start() : undefined));
    }
  }

  finish(): void {
    for (const timer of this.#timers) clearInterval(timer);
    removeEventListener('online', this.#online);
    this.#link.stop();
    this.#phone.stop();
    this.#sound.close();
  }

  async start(): Promise<void> {
    if (this.step || this.started) return;
    const again = sessionStorage.getItem(ON_SHIFT) === this.name;
    this.trouble = '';
    this.micTrouble = null;
    try {
      this.step = 'sound';
      await this.#sound.open();
      if (!again) this.#sound.chime();
      this.#micHeardAt = Date.now();
      this.step = 'phone';
      await this.#register();
      this.step = 'ready';
      // A reload in the middle of a call or a pause leaves the state as it is.
      if (again) await until(() => this.world.ready, SNAPSHOT_WITHIN_MS);
      if (!again || this.me === null || this.me.state === 'offline') await this.#ready();
      sessionStorage.setItem(ON_SHIFT, this.name);
      this.started = true;
      if ('Notification' in window && Notification.permission === 'default') void Notification.requestPermission();
    } catch (error) {
      if (error instanceof MicClosed) this.micTrouble = error.trouble;
      else this.trouble = error instanceof Error ? error.message : String(error);
      this.#phone.stop();
      this.#sound.close();
    } finally {
      this.step = null;
    }
  }

  async end(): Promise<void> {
    sessionStorage.removeItem(ON_SHIFT);
    this.started = false;
    this.#phone.stop();
    this.#sound.close();
    await this.#try(() => api.state({ state: 'offline' }));
  }

  async logOut(): Promise<void> {
    if (this.started) await this.end();
    this.finish();
    await api.logOut().catch(() => null);
    this.#onGone();
  }

  async #register(): Promise<void> {
    const access = this.#session.sip ?? (await this.#credentials());
    if (!access) throw new Error(t('shift.phoneFailed', { words: '' }));
    await this.#phone.start(access);
    await until(() => this.phoneState === 'registered' || this.phoneState === 'refused', REGISTER_WITHIN_MS);
    if (this.phoneState === 'registered') return;
    throw new Error(t('shift.phoneFailed', { words: this.phoneState === 'refused' ? t('shift.phoneRefused') : t('call.noServer') }));
  }

  async #ready(): Promise<void> {
    try {
      await api.state({ state: 'available' });
    } catch (error) {
      // Already in a call or its wrap-up: the server keeps that state, and that is right.
      if (error instanceof Refused && error.status === 409) return;
      throw new Error(t('shift.stateFailed', { words: wordsOf(error) }), { cause: error });
    }
  }

  async #credentials(): Promise<SipAccess | null> {
    try {
      this.#session = await api.session();
      return this.#session.sip;
    } catch (error) {
      if (error instanceof Refused && error.status === 401) this.#gone();
      return null;
    }
  }

  #gone(): void {
    this.finish();
    this.#onGone();
  }

  #online = (): void => this.#link.hurry();

  // ── the feed ─────────────────────────────────────────────────────────────────────────────────

  #heard(message: Message): void {
    if (message.type === 'ping') {
      if (message.at) this.world = apply(this.world, message, Date.now());
      return;
    }
    const before = this.world;
    const callBefore = this.look.call?.id;
    this.world = apply(before, message, Date.now());
    if (message.type === 'reset') this.#serverStartedAgain(before.me?.state);
    // A new call wipes away what was said about older things.
    if (this.look.call && this.look.call.id !== callBefore && this.note?.tone !== 'good') this.note = null;
    if (this.dialling !== null && this.look.call) this.dialling = null;
    if (this.world.ended !== before.ended) this.#callEnded();
    if (this.world.cards !== before.cards) this.cards.changed();
    this.#talkingIs(this.look.mode === 'talking');
  }

  /** A server that was restarted forgot who was on shift: the operator is, and says so again. */
  #serverStartedAgain(before: string | undefined): void {
    const onShift = this.started && before !== undefined && before !== 'offline';
    if (!onShift || (this.me !== null && this.me.state !== 'offline')) return;
    const again = before === 'paused' ? this.#try(() => api.state({ state: 'paused' })) : this.#ready();
    again.catch((error: unknown) => this.say(failure(error), 'bad'));
  }

  #feedIs(status: LinkStatus): void {
    const tried = status.attempts !== this.feed.attempts;
    this.feed = status;
    // The server may have forgotten the log-in; a WebSocket cannot say so, the API can.
    if (tried && status.attempts >= 2) void this.#credentials();
  }

  #callEnded(): void {
    const call = this.world.ended;
    if (!call || call.direction !== 'out' || call.answered_at) return;
    const tone = call.tone && FAILING.includes(call.tone) ? call.tone : call.result === 'busy' ? 'busy' : null;
    const words = call.cause?.words || named('result', call.result);
    if (tone) this.say(t('mode.carrier', { tone: named('tone', tone) }), 'plain');
    else if (words) this.say(t('call.ended', { words }), 'plain');
  }

  #talkingIs(talking: boolean): void {
    if (talking && !this.#wasTalking) {
      this.#packets = null;
      this.callerSilent = false;
      this.#micHeardAt = Date.now();
      this.cards.answered();
    }
    if (!talking) this.cards.wantPickup = false;
    // What was said about the conversation is over with it.
    if (!talking && this.#wasTalking && this.note?.tone === 'plain') this.note = null;
    this.#wasTalking = talking;
  }

  // ── the phone ────────────────────────────────────────────────────────────────────────────────

  #linesAre(lines: Line[]): void {
    this.lines = lines;
    if (lines.length === 0) this.muted = false;
    const ringing = this.look.toAnswer;
    this.#sound.ring(ringing);
    if (ringing) this.#notify();
    this.#talkingIs(this.look.mode === 'talking');
  }

  async #answerByItself(call: string): Promise<void> {
    // A session whose call is over must not stand beside a new one.
    for (const line of this.lines) if (line.call !== call && line.named && this.feed.state === 'live' && !(line.call in this.world.calls)) this.#phone.end(line.call);
    await Promise.all([this.#sound.beep(), this.#sound.open().catch(() => null)]);
    this.#phone.answer(call);
  }

  answer(): void {
    const { line, toAnswer } = this.look;
    if (line && toAnswer) this.#phone.answer(line.call);
  }

  /** By button: at once. By key: twice while talking. */
  async hangUp(byKey = false): Promise<void> {
    const { mode, call, line, toAnswer, canHangUp } = this.look;
    if (toAnswer && line) {
      this.#phone.end(line.call);
      return;
    }
    if (!canHangUp) return;
    const now = Date.now();
    if (byKey && !endsNow(mode === 'talking' || mode === 'held', this.#endPressed, now)) {
      this.#endPressed = now;
      this.say(t('call.again'), 'plain', 1_200);
      return;
    }
    this.#endPressed = null;
    this.dialling = null;
    try {
      if (call) await api.control(call.id, 'hangup');
      else if (line) this.#phone.end(line.call);
    } catch (error) {
      if (line) this.#phone.end(line.call);
      else this.say(failure(error), 'bad');
    }
  }

  mute(): void {
    if (!this.lines.some((line) => line.state === 'up')) return;
    this.muted = !this.muted;
    this.#phone.mute(this.muted);
  }

  async hold(): Promise<void> {
    const { call, canHold, canResume } = this.look;
    if (!call || !(canHold || canResume)) return;
    await this.#try(() => api.control(call.id, canHold ? 'hold' : 'resume'));
  }

  async digits(digits: string): Promise<boolean> {
    const { call } = this.look;
    return call !== null && this.#try(() => api.digits(call.id, digits));
  }

  async dial(number: string): Promise<boolean> {
    const to = number.replace(/[\s().-]/g, '');
    if (!to || !this.look.canDial) return false;
    this.dialling = to;
    this.#diallingUntil = Date.now() + DIALLING_MS;
    const done = await this.#try(() => api.call(to));
    if (!done) this.dialling = null;
    return done;
  }

  async setState(state: 'available' | 'paused', reason?: string): Promise<void> {
    await this.#try(() => api.state(reason ? { state, reason } : { state }));
  }

  async readyOrPause(): Promise<void> {
    if (this.look.mode === 'available') await this.setState('paused');
    else if (this.look.canBeAvailable) await this.setState('available');
  }

  async setAutoAnswer(on: boolean): Promise<void> {
    const { me } = this.world;
    if ((await this.#try(() => api.state({ auto_answer: on }))) && me) {
      this.world = { ...this.world, me: { ...(this.world.me ?? me), auto_answer: on } };
    }
  }

  // ── the cards ────────────────────────────────────────────────────────────────────────────────

  repeat(n: number): void {
    const order = this.customer?.orders?.[n - 1];
    if (order) this.cards.type({ pickup: order.pickup, destination: order.destination });
  }

  async discard(reason: string): Promise<void> {
    const { card } = this;
    if (!card || !(await this.#try(() => api.discard(card.id, reason)))) return;
    this.#close(card.id);
    this.say(t('order.discarded'), 'plain');
  }

  #close(id: string): void {
    this.world = closeCard(this.world, id);
    this.cards.changed();
  }

  // ── time ─────────────────────────────────────────────────────────────────────────────────────

  #tick(): void {
    const now = Date.now();
    this.now = now;
    this.cards.tick(now);
    for (const ghost of ghosts(this.world, this.name, this.lines, this.feed.state, now)) this.#phone.end(ghost.call);
    if (this.note && now > this.note.until) this.note = null;
    if (this.dialling !== null && now > this.#diallingUntil) this.dialling = null;
    this.#blink(now);
  }

  #meter(): void {
    if (!this.started) return;
    const level = this.#sound.level();
    // The screen moves only when the eye would see it.
    if (Math.abs(level - this.level) > 0.005) this.level = level;
    const now = Date.now();
    if (level > DEAD_AIR || this.muted || this.look.mode !== 'talking') this.#micHeardAt = now;
    this.micSilent = now - this.#micHeardAt > MIC_SILENT_MS;
  }

  get speaking(): boolean {
    return isSpeech(this.level);
  }

  async #listen(): Promise<void> {
    const { line, mode } = this.look;
    if (mode !== 'talking' || line?.state !== 'up') {
      this.#packets = null;
      this.callerSilent = false;
      return;
    }
    const count = await this.#phone.heard(line.call).catch(() => null);
    const now = Date.now();
    if (count === null) return;
    if (!this.#packets || count > this.#packets.count) this.#packets = { count, at: now };
    this.callerSilent = now - this.#packets.at > CALLER_SILENT_MS;
  }

  async #headsetPulled(): Promise<void> {
    this.micLost = true;
    try {
      await this.#phone.useMicrophone(await this.#sound.open());
      this.micLost = false;
    } catch {
      // Stays lost, in words, until a headset is back: the next change of devices tries again.
      navigator.mediaDevices?.addEventListener('devicechange', () => void this.#headsetPulled(), { once: true });
    }
  }

  #blink(now: number): void {
    const { toAnswer, number } = this.look;
    const title = toAnswer && Math.floor(now / 700) % 2 === 0 ? `☎ ${number ?? t('mode.ringing')}` : `${t(`mode.${this.look.mode}`, { tone: named('tone', this.look.tone) })} · Tandem`;
    if (document.title !== title) document.title = title;
  }

  #notify(): void {
    if (!document.hidden || !('Notification' in window) || Notification.permission !== 'granted') return;
    const { line, number } = this.look;
    const note = new Notification(t('mode.ringing'), { body: number ?? '', tag: line?.call ?? 'call', requireInteraction: true });
    note.onclick = () => window.focus();
  }

  say(words: string, tone: Note['tone'], ms = NOTE_MS): void {
    this.note = { words, tone, until: Date.now() + ms };
  }

  async #try(ask: () => Promise<unknown>): Promise<boolean> {
    try {
      await ask();
      return true;
    } catch (error) {
      if (error instanceof Refused && error.status === 401) void this.#credentials();
      this.say(failure(error), 'bad');
      return false;
    }
  }
}

/** Waits for something that comes by events; gives up quietly. */
async function until(there: () => boolean, within_ms: number): Promise<void> {
  for (const end = Date.now() + within_ms; !there() && Date.now() < end; ) await new Promise((next) => setTimeout(next, 50));
}

function failure(error: unknown): string {
  return t('call.failed', { words: wordsOf(error) });
}

function wordsOf(error: unknown): string {
  return error instanceof Refused && error.status === 0 ? t('call.noServer') : error instanceof Error ? error.message : '';
}
