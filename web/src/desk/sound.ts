/**
 * The operator's ears and mouth: the microphone that stays open for the whole shift, its meter, the
 * beep before an automatic answer and the ring before a manual one.
 */
export type MicTrouble = 'denied' | 'missing' | 'busy' | 'insecure';

const BEEP_MS = 300;
const BEEP_HZ = 880;
const RING_HZ = [523.25, 659.25] as const;
const RING_EVERY_MS = 2_400;
const LOUDNESS = 0.12;
const SPEECH = 0.02;

/** Processing of the voice by the browser; `?audio=raw` (kept on the machine) turns it off, for measuring. */
export function constraints(search: string, kept: string | null): MediaTrackConstraints {
  const asked = new URLSearchParams(search).get('audio') ?? kept;
  const on = asked !== 'raw';
  return { echoCancellation: on, noiseSuppression: on, autoGainControl: on };
}

export function troubleOf(error: unknown, secure: boolean): MicTrouble {
  if (!secure) return 'insecure';
  const name = error instanceof Error ? error.name : '';
  if (name === 'NotAllowedError' || name === 'SecurityError') return 'denied';
  return name === 'NotFoundError' || name === 'OverconstrainedError' ? 'missing' : 'busy';
}

export class MicClosed extends Error {
  constructor(readonly trouble: MicTrouble) {
    super(trouble);
    this.name = 'MicClosed';
  }
}

export class Sound {
  #stream: MediaStream | null = null;
  #context: AudioContext | null = null;
  #meter: AnalyserNode | null = null;
  #source: MediaStreamAudioSourceNode | null = null;
  #frame = new Float32Array(1024);
  #ringing: ReturnType<typeof setInterval> | undefined;

  /** `lost` is called when the open microphone goes away by itself (the headset was pulled). */
  constructor(private readonly lost: () => void) {}

  get stream(): MediaStream | null {
    return this.#stream;
  }

  /** The browser lets us be heard and hear. */
  get running(): boolean {
    return this.#context?.state === 'running';
  }

  get live(): boolean {
    return this.#stream?.getAudioTracks()[0]?.readyState === 'live';
  }

  async open(): Promise<MediaStream> {
    if (this.#stream && this.live) return this.#stream;
    if (!window.isSecureContext || !navigator.mediaDevices) throw new MicClosed('insecure');
    const search = new URLSearchParams(location.search).get('audio');
    if (search) localStorage.setItem('tandem.audio', search);
    try {
      const audio = constraints(location.search, localStorage.getItem('tandem.audio'));
      this.#stream = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      throw new MicClosed(troubleOf(error, window.isSecureContext));
    }
    const stream = this.#stream;
    stream.getAudioTracks()[0]?.addEventListener('ended', () => {
      if (this.#stream === stream) this.lost();
    });
    this.#context ??= new AudioContext();
    // Without a gesture it stays suspended for a while; waiting for it would hang the start.
    if (this.#context.state !== 'running') await Promise.race([this.#context.resume(), later(500)]);
    this.#source?.disconnect();
    this.#meter ??= Object.assign(this.#context.createAnalyser(), { fftSize: this.#frame.length });
    this.#source = this.#context.createMediaStreamSource(stream);
    this.#source.connect(this.#meter);
    return stream;
  }

  close(): void {
    this.ring(false);
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.#source?.disconnect();
    this.#source = null;
  }

  /** The microphone's level now: root mean square, 0…1. */
  level(): number {
    if (!this.#meter || !this.live) return 0;
    this.#meter.getFloatTimeDomainData(this.#frame);
    let energy = 0;
    for (const sample of this.#frame) energy += sample * sample;
    return Math.sqrt(energy / this.#frame.length);
  }

  /** A short tone that says: you are on the line now. */
  async beep(): Promise<void> {
    this.#tone(BEEP_HZ, BEEP_MS);
    await later(BEEP_MS);
  }

  /** Two soft notes: the sound works. */
  chime(): void {
    this.#tone(RING_HZ[0], 160);
    this.#tone(RING_HZ[1], 320, 160);
  }

  ring(on: boolean): void {
    if (on === (this.#ringing !== undefined)) return;
    clearInterval(this.#ringing);
    this.#ringing = undefined;
    if (!on) return;
    const once = (): void => {
      for (const at of [0, 400, 800]) {
        this.#tone(RING_HZ[0], 180, at);
        this.#tone(RING_HZ[1], 180, at + 190);
      }
    };
    once();
    this.#ringing = setInterval(once, RING_EVERY_MS);
  }

  #tone(hz: number, ms: number, after = 0): void {
    const context = this.#context;
    if (context?.state !== 'running') return;
    const at = context.currentTime + after / 1000;
    const end = at + ms / 1000;
    const gain = context.createGain();
    gain.gain.setValueAtTime(0, at);
    gain.gain.linearRampToValueAtTime(LOUDNESS, at + 0.01);
    gain.gain.setValueAtTime(LOUDNESS, end - 0.03);
    gain.gain.linearRampToValueAtTime(0, end);
    const oscillator = context.createOscillator();
    oscillator.frequency.value = hz;
    oscillator.connect(gain).connect(context.destination);
    oscillator.start(at);
    oscillator.stop(end);
  }
}

export const isSpeech = (level: number): boolean => level > SPEECH;

/** The browser has given the microphone before: a reload may start the shift by itself. */
export async function micGranted(): Promise<boolean> {
  try {
    const { state } = await navigator.permissions.query({ name: 'microphone' as PermissionName });
    return state === 'granted';
  } catch {
    return false;
  }
}

const later = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));
