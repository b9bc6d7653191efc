/**
 * The operator's telephone: registers, answers, ends, restarts ICE. Everything else (hold, digits,
 * transfer, dialling) is asked of Tandem by the API. The only file that knows JsSIP, which is fetched
 * when a shift starts.
 *
 * Invariant: the shift's microphone is lent to a call as a copy, so that muting or ending a call never
 * closes it.
 */
import type { RTCSession } from 'jssip/lib/RTCSession';
import type { IncomingRTCSessionEvent, RTCSessionEvent, UA } from 'jssip/lib/UA';
import { socketAddress } from '../shared/link';
import type { SipAccess } from '../shared/shapes';
import type { Line } from './desk';

export type PhoneState = 'off' | 'registering' | 'registered' | 'lost' | 'refused';

export interface PhoneEvents {
  state(state: PhoneState): void;
  lines(lines: Line[]): void;
  /** The other side's sound, or null when nobody is on the line. */
  voice(stream: MediaStream | null): void;
  /** An INVITE that wants to be answered by the desk itself. */
  wanted(call: string): void;
  /** The server refused our credentials: they are to be asked for anew. */
  credentials(): Promise<SipAccess | null>;
}

interface Held {
  session: RTCSession;
  line: Line;
  lent: MediaStream | null;
}

const INSTANCE = 'tandem.phone';
const ANSWER_WITHIN_S = 300;
const REFUSED_RETRY_MS = 5_000;

export class Phone {
  #ua: UA | null = null;
  #held = new Map<string, Held>();
  #muted = false;
  #retry: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly events: PhoneEvents,
    private readonly microphone: () => MediaStream | null,
  ) {}

  async start(access: SipAccess): Promise<void> {
    this.stop();
    this.events.state('registering');
    const { default: JsSIP } = await import('jssip');
    const ua = new JsSIP.UA({
      sockets: [new JsSIP.WebSocketInterface(socketAddress(access.websocket))],
      uri: access.uri,
      authorization_user: access.username,
      password: access.password,
      instance_id: instance(),
      register: true,
      register_expires: 120,
      // Tandem watches the call itself; JsSIP's timer would end it when an UPDATE goes unanswered.
      session_timers: false,
      no_answer_timeout: ANSWER_WITHIN_S,
      connection_recovery_min_interval: 1,
      connection_recovery_max_interval: 10,
      user_agent: 'Tandem desk',
    });
    this.#ua = ua;
    ua.on('registered', () => {
      this.events.state('registered');
      this.#mend();
    });
    ua.on('unregistered', () => this.events.state('lost'));
    ua.on('disconnected', () => this.events.state('lost'));
    ua.on('registrationFailed', (failure) => {
      const status = (failure.response as { status_code?: number } | null)?.status_code ?? 0;
      this.events.state(status >= 400 && status < 500 ? 'refused' : 'lost');
      this.#registerLater(ua);
    });
    ua.on('newRTCSession', (event: RTCSessionEvent) => {
      if (event.originator === 'remote') this.#invited(event as IncomingRTCSessionEvent);
    });
    ua.start();
  }

  stop(): void {
    clearTimeout(this.#retry);
    this.#ua?.stop();
    this.#ua = null;
    for (const held of this.#held.values()) this.#forget(held);
    this.events.state('off');
  }

  answer(call: string): void {
    const held = this.#held.get(call);
    const microphone = this.microphone();
    if (!held || held.line.state !== 'ringing' || !microphone) return;
    held.lent = microphone.clone();
    this.#say(held, 'answering');
    held.session.answer({ mediaStream: held.lent, pcConfig: { iceServers: [] } });
    if (this.#muted) held.session.mute({ audio: true });
  }

  /** Refuses a ringing call with 486, ends any other. */
  end(call: string): void {
    const held = this.#held.get(call);
    if (!held) return;
    try {
      held.session.terminate(held.line.state === 'ringing' ? { status_code: 486 } : {});
    } catch {
      // JsSIP throws when the session has ended meanwhile; that was what we wanted.
    }
    this.#forget(held);
  }

  mute(muted: boolean): void {
    this.#muted = muted;
    for (const { session } of this.#held.values()) {
      if (muted) session.mute({ audio: true });
      else session.unmute({ audio: true });
    }
  }

  /** The headset was changed: the live call goes on with the new microphone. */
  async useMicrophone(stream: MediaStream): Promise<void> {
    for (const held of this.#held.values()) {
      if (!held.lent) continue;
      const lent = stream.clone();
      const track = lent.getAudioTracks()[0] ?? null;
      if (track) track.enabled = !this.#muted;
      const sender = held.session.connection?.getSenders().find((one) => one.track?.kind === 'audio' || one.track === null);
      await sender?.replaceTrack(track);
      stopTracks(held.lent);
      held.lent = lent;
    }
  }

  /** Packets received in the call so far; null while there is nothing to count. */
  async heard(call: string): Promise<number | null> {
    const connection = this.#held.get(call)?.session.connection;
    if (!connection) return null;
    let packets: number | null = null;
    for (const report of (await connection.getStats()).values() as Iterable<{ type: string; packetsReceived?: number }>) {
      if (report.type === 'inbound-rtp') packets = (packets ?? 0) + (report.packetsReceived ?? 0);
    }
    return packets;
  }

  #invited({ session, request }: IncomingRTCSessionEvent): void {
    const named = request.getHeader('X-Tandem-Call');
    const call = named || session.id;
    const autoAnswer = /answer-after\s*=\s*0/i.test(request.getHeader('Call-Info') || '');
    // The same call rings again after a reload or a lost line: the new session is the true one.
    const before = this.#held.get(call);
    if (before) this.end(call);
    const line: Line = {
      call,
      named: Boolean(named),
      from: request.from.uri.user || request.from.display_name || '',
      queue: request.getHeader('X-Tandem-Queue') || null,
      autoAnswer,
      state: 'ringing',
      since: Date.now(),
    };
    const held: Held = { session, line, lent: null };
    this.#held.set(call, held);
    session.on('peerconnection', ({ peerconnection }) => {
      peerconnection.addEventListener('track', (event: RTCTrackEvent) => {
        this.events.voice(event.streams[0] ?? new MediaStream([event.track]));
      });
    });
    // The server needs none of our candidates (ICE-lite): the answer does not wait for the rest.
    session.on('icecandidate', ({ ready }) => ready());
    session.on('accepted', () => this.#say(held, 'up'));
    session.on('confirmed', () => this.#say(held, 'up'));
    session.on('ended', () => this.#forget(held));
    session.on('failed', () => this.#forget(held));
    this.#tell();
    if (autoAnswer) this.events.wanted(call);
  }

  #say(held: Held, state: Line['state']): void {
    held.line = { ...held.line, state };
    this.#tell();
  }

  #forget(held: Held): void {
    if (this.#held.get(held.line.call) !== held) return;
    this.#held.delete(held.line.call);
    if (held.lent) stopTracks(held.lent);
    if (this.#held.size === 0) {
      this.#muted = false;
      this.events.voice(null);
    }
    this.#tell();
  }

  #tell(): void {
    this.events.lines([...this.#held.values()].map(({ line }) => line));
  }

  /** After a change of network the sound is found again by new ICE credentials. */
  #mend(): void {
    for (const { session, line } of this.#held.values()) {
      const ice = session.connection?.iceConnectionState;
      if (line.state === 'up' && (ice === 'failed' || ice === 'disconnected') && session.isReadyToReOffer()) {
        session.renegotiate({ rtcOfferConstraints: { iceRestart: true } });
      }
    }
  }

  #registerLater(ua: UA): void {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => {
      void this.events.credentials().then((access) => {
        if (this.#ua !== ua) return;
        if (access) ua.set('password', access.password);
        if (ua.isConnected()) ua.register();
        else this.#registerLater(ua);
      });
    }, REFUSED_RETRY_MS);
  }
}

/** The same phone after a reload: its registration replaces the old one instead of standing beside it. */
function instance(): string {
  const kept = localStorage.getItem(INSTANCE);
  if (kept) return kept;
  const fresh = crypto.randomUUID();
  localStorage.setItem(INSTANCE, fresh);
  return fresh;
}

function stopTracks(stream: MediaStream): void {
  for (const track of stream.getTracks()) track.stop();
}
